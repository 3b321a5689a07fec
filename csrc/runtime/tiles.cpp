#include "runtime/tiles.h"

#include <algorithm>

#include "kernels/ops.h"

namespace resnetcore {

bool ends_in_sums(const Phase& phase) {
    if (phase.steps.empty()) return false;
    const StepKind kind = phase.steps.back().kind;
    return kind == StepKind::moments || kind == StepKind::norm_sums;
}

bool divides_columns(const Plan& plan, std::int64_t rows, int threads, std::int64_t weight_bytes, RowUnits units) {
    std::int64_t steps = 0;
    for (const Phase& phase : plan.phases) steps += static_cast<std::int64_t>(phase.steps.size());
    return columns_pay(rows, weight_bytes, steps, threads, units.block);
}

bool divides_training_columns(const Plan& plan, std::int64_t rows, int threads, std::int64_t weight_bytes,
                              std::int64_t element_size, int product_speed) {
    if (plan.tile_local) return false;
    ProductSizes products;
    products.weights = weight_bytes / element_size;
    for (const Phase& phase : plan.phases)
        for (const Step& step : phase.steps) {
            if (step.kind == StepKind::weights) return false;  // tiles of rows add them up
            if (step.products.empty()) continue;
            ++products.count;
            products.results += rows * step.width;
            std::int64_t width = 0;
            for (const Product& product : step.products) width += plan.buffers[product.rows].width;
            products.operand_bytes = std::max(products.operand_bytes, rows * width * element_size);
        }
    return training_columns_pay(rows, products, threads, product_speed);
}

// A tile adds its share to every weight gradient. Where a kernel takes two stretches together, each is read and written
// half as often.
static Tile tile_of_gradients(std::int64_t rows, int threads, bool stretches) {
    if (stretches && rows >= 2 * gradient_stretch * threads)
        return {2 * gradient_stretch, "a tile adds two stretches to every weight gradient"};
    return {std::min(rows, gradient_stretch), "a tile adds one stretch to every weight gradient"};
}

Tile tile_of(const Plan& plan, std::int64_t rows, int threads, std::int64_t weight_bytes, std::int64_t element_size,
             RowUnits units) {
    std::int64_t widest = 1;
    for (const BufferInfo& buffer : plan.buffers) widest = std::max(widest, buffer.width);
    bool sums = false;
    for (const Phase& phase : plan.phases) {
        sums |= ends_in_sums(phase);
        for (const Step& step : phase.steps)
            // Backward in a framework, beside what forward left, was timed with one stretch alone.
            if (step.kind == StepKind::weights)
                return tile_of_gradients(rows, threads, units.stretches && plan.kept_elements == 0);
    }
    // Both are powers of two.
    const std::int64_t multiple = std::max<std::int64_t>(sums ? statistics_chunk(rows) : 1, units.block);
    return cheapest_tile(rows, weight_bytes, widest * element_size, threads, multiple);
}

}  // namespace resnetcore
