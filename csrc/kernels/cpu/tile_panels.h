// PanelLoop (epilogue.h) on a matrix unit: while it multiplies for one block of rows, the vector units finish the block
// before. Included inside an ISA's namespace.
//
// Invariant: as micro_kernel.h's; how a sum is cut depends on the sources alone, and cutting it into chunks changes no
// bit, as tiles that come back from memory are as they went.

// Sums of more steps than this are cut and the parts added, as in micro_kernel.h. A step's terms are summed apart and
// then added, so that a long sum grows by one rounding a step.
constexpr int most_steps = 256;

// So much of a panel of W goes with every block of rows before the rest of it: it stays in L1, while A comes from the
// second-level cache, which is too slow for both, and is loaded past L1 then. Longer panels of bfloat16x2 go in chunks
// of half of that, as A has two planes; and where there is one block of rows, for which W comes by once, it is A that
// stays in L1 (docs/performance.md, "On AMX").
constexpr int chunk_bytes = 32 << 10;
// So many blocks of rows, whose sums lie in memory meanwhile.
constexpr int blocks_at_once = 8;

// A block whose sums are there, finished a few rows at a time, and beside the products: `plain` epilogues in place, as
// a call for each of them would take a tenth of the time; all others by calls.
template <class T, class Formulas, class Args, bool plain>
class BlockBehind {
public:
    static constexpr int at_once = 8, pieces = block_rows / at_once;  // as many rows as registers take

    explicit BlockBehind(const Args& args) : args_(args) {}
    ~BlockBehind() {
        finish();
        if (args_.largest && args_.out.data) seen_.into(args_.largest);
    }
    BlockBehind(const BlockBehind&) = delete;

    RC_HD void set(const StoredTile<T, block_rows>& sum, std::int64_t panel, std::int64_t row, int rows) {
        sum_ = &sum, panel_ = panel, row_ = row, rows_ = rows, done_ = 0;
        whole_ = args_.columns >= (panel + 1) * sums_width;
    }
    RC_HD void next() {
        if (plain && whole_ && done_ + at_once <= rows_) {
            Formulas epilogue{{args_, panel_ * sums_width, {word_lanes, word_lanes}}};
            Accumulators<T, at_once, 2> some = sum_->template rows<at_once>(done_);
            epilogue.template finish_rows<at_once, true>(some, row_ + done_);
            look(at_once, panel_ * sums_width, sums_width);
            done_ += at_once;
        } else if (done_ < rows_) {
            call();
        }
    }
    RC_HD void finish() {
        while (done_ < rows_) call();
    }

private:
    __attribute__((noinline)) void call() {
        Formulas epilogue = epilogue_of<T, Formulas>(args_, panel_);
        const int last = done_ + at_once < rows_ ? done_ + at_once : rows_;
        finish_stored<at_once>(*sum_, done_, last, row_, epilogue);
        look(last - done_, epilogue.column, epilogue.columns());
        done_ = last;
    }
    RC_HD void look(int rows, std::int64_t column, int columns) {
        if (!args_.largest || !args_.out.data) return;
        const T* const from = args_.out.data + (row_ + done_) * args_.out.stride + column;
        for (int i = 0; i < rows; ++i) seen_.take(from + i * args_.out.stride, columns);
    }

    const Args& args_;
    const StoredTile<T, block_rows>* sum_ = nullptr;
    std::int64_t panel_ = 0, row_ = 0;
    int rows_ = 0, done_ = 0;
    bool whole_ = false;
    LargestSoFar<T> seen_;
};

template <class T>
struct TilePanelLoop {
    template <class Formulas, class Args>
    static void run(const Args& args, std::int64_t first, std::int64_t last) {
        if constexpr (Formulas::in_registers)
            if (Formulas::is_plain(args)) return run_blocks<BlockBehind<T, Formulas, Args, true>>(args, first, last);
        run_blocks<BlockBehind<T, Formulas, Args, false>>(args, first, last);
    }

private:
    static constexpr int group_rows = blocks_at_once * block_rows;
    static constexpr int longest_chunk = chunk_bytes / Steps<T>::bytes;  // in steps

    TilePanelLoop(const Source<T>* sources, int n)
        : sources_(sources),
          n_(n),
          steps_(steps_of(sources, n)),
          chunk_steps_(steps_ > longest_chunk ? longest_chunk / planes<T> : longest_chunk) {}

    template <class Behind, class Args>
    static __attribute__((noinline)) void run_blocks(const Args& args, std::int64_t first, std::int64_t last) {
        const MatrixUnit<T> unit{};
        TilePanelLoop sums(args.sources, args.n_sources);
        Behind behind(args);
        const std::int64_t rows = args.n_sources > 0 ? args.rows : block_rows;  // without a product, memory's order
        for (std::int64_t row = 0; row < args.rows; row += rows)
            for (std::int64_t panel = first; panel < last; ++panel)
                for (std::int64_t begin = row; begin < row + rows && begin < args.rows; begin += group_rows) {
                    const std::int64_t left =
                        args.rows - begin < row + rows - begin ? args.rows - begin : row + rows - begin;
                    sums.add_group(panel, begin, left < group_rows ? static_cast<int>(left) : group_rows, begin == row,
                                   behind);
                }
    }

    // One panel of the sums of rows [begin, begin + rows).
    template <class Behind>
    RC_HD void add_group(std::int64_t panel, std::int64_t begin, int rows, bool fetches, Behind& behind) {
        const std::int64_t parts = steps_ > most_steps ? (steps_ + most_steps - 1) / most_steps : 1;
        const int blocks = (rows + block_rows - 1) / block_rows;
        const bool in_chunks = chunks_of(steps_) > 1, once = blocks > 1 && 2 * planes<T> * steps_ > longest_chunk,
                   fetches_ahead = fetches && once;
        const int fetched = fetches_ahead ? Steps<T>::lines : 0;
        Steps<T> at(sources_, n_, panel);
        std::int64_t done = 0;
        for (std::int64_t part = 0; part < parts; ++part) {
            const std::int64_t start = done, steps = steps_ * (part + 1) / parts - start, chunks = chunks_of(steps);
            for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
                const bool ends_part = chunk + 1 == chunks;
                const auto here = static_cast<int>(start + steps * (chunk + 1) / chunks - done);
                const int pieces_of_a_step = here < Behind::pieces ? (Behind::pieces + here - 1) / (here + !here) : 1;
                Steps<T> next = at;
                for (int block = 0; block < blocks; ++block) {
                    const int row = block * block_rows, rows_here = rows_of_block(rows - row);
                    StoredTile<T, block_rows>& sum = sums_[in_chunks ? block : 0];
                    chunk == 0 ? clear_sums() : load_sums(sum.at[0], rows_here);
                    next = at;
                    for (int step = 0; step < here;) {
                        const auto whole = next.whole(begin + row, here - step);
                        if (whole.count == 0 || rows_here % tile_height != 0) {
                            next.add_padded(begin + row, rows_here);
                            next.skip(1);
                            behind.next();
                            ++step;
                            continue;
                        }
                        const T* a = whole.a;
                        const T* w = whole.w;
                        const T* const end = w + whole.count * Steps<T>::size;
                        for (; w != end; a += step_length, w += Steps<T>::size) {
                            // The blocks of rows share the lines of each step.
                            if (fetched > 0)
                                next.fetch_next_panel(w, fetched * block / blocks, fetched * (block + 1) / blocks);
                            const T* const lower = rows_here == block_rows ? a + tile_height * whole.stride : nullptr;
                            once ? add_rows_of_a<true>(a, lower, whole.stride, w)
                                 : add_rows_of_a<false>(a, lower, whole.stride, w);
                            for (int piece = 0; piece < pieces_of_a_step; ++piece) behind.next();
                        }
                        next.skip(whole.count);
                        step += whole.count;
                    }
                    behind.finish();
                    if (ends_part && parts > 1)
                        sums_into_memory<T>(parts_[block].at[0], part == 0, rows_here);
                    else
                        store_sums(sum.at[0], rows_here);
                    if (ends_part && part + 1 == parts)
                        behind.set(parts > 1 ? parts_[block] : sum, panel, begin + row, rows_here);
                }
                done += here;
                at = next;
            }
        }
    }
    RC_HD std::int64_t chunks_of(std::int64_t steps) const {
        const std::int64_t chunks = (steps + chunk_steps_ / 2) / chunk_steps_;
        return chunks > 1 ? chunks : 1;
    }

    const Source<T>* sources_;
    const int n_;
    const std::int64_t steps_, chunk_steps_;
    StoredTile<T, block_rows> sums_[blocks_at_once], parts_[blocks_at_once];
};

template <>
struct PanelLoop<bfloat16> : TilePanelLoop<bfloat16> {};
template <>
struct PanelLoop<bfloat16x2> : TilePanelLoop<bfloat16x2> {};
