#include "train/step_shape.h"

#include "runtime/thread_pool.h"

namespace resnetcore {

template <class T>
ProductSizes product_sizes(const Model<T>& model, std::int64_t rows) {
    ProductSizes sizes;
    sizes.weights = 2 * model.weight_elements();
    for (const Layer& layer : model.topology().layers) {
        sizes.count += layer.gate ? 3 : 2;
        sizes.results += 2 * rows * layer.width;
    }
    return sizes;
}

template <class T>
StepShape step_shape(const Model<T>& model, std::int64_t rows) {
    StepShape shape;
    shape.rows = rows;
    shape.element_size = sizeof(T);
    shape.weights = model.weight_elements();
    for (const Layer& layer : model.topology().layers) {
        shape.row_width += layer.width;
        shape.one_phase &= !layer.batch_norm;
    }
    for (const Parameter& p : model.parameters().all) shape.read_width += p.rows;
    shape.in_tiles = model.device().is_host();
    // Forward, data and weights each multiply every weight with every row; an activation costs some more.
    shape.threads =
        useful_training_threads(rows, 3 * shape.weights + 16 * shape.row_width, product_sizes(model, rows),
                                model.kernels().product_speed, model.kernels().row_block, get_num_threads());
    if (!shape.in_tiles) shape.device = model.device().name(), shape.threads = 1;
    return shape;
}

template ProductSizes product_sizes(const Model<float>&, std::int64_t);
template ProductSizes product_sizes(const Model<double>&, std::int64_t);
template ProductSizes product_sizes(const Model<bfloat16>&, std::int64_t);
template ProductSizes product_sizes(const Model<bfloat16x2>&, std::int64_t);
template StepShape step_shape(const Model<float>&, std::int64_t);
template StepShape step_shape(const Model<double>&, std::int64_t);
template StepShape step_shape(const Model<bfloat16>&, std::int64_t);
template StepShape step_shape(const Model<bfloat16x2>&, std::int64_t);

}  // namespace resnetcore
