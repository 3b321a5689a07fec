// PanelLoop (epilogue.h) on a matrix unit: while it multiplies for one block of rows, the vector units finish the block
// before. Included inside an ISA's namespace.
//
// Invariant: as micro_kernel.h's; how a sum is cut depends on the sources alone, and cutting it into chunks changes no
// bit, as tiles that come back from memory are as they went.

// Sums of more steps than this are cut and the parts added, as in micro_kernel.h. A step's terms are summed apart and
// then added, so that a long sum grows by one rounding a step.
constexpr int most_steps = 256;

// So much of a panel of W goes with every block of rows before the rest of it: it stays in L1, while A comes from the
// second-level cache, which is too slow for both. A of bfloat16 is loaded past L1 then; a number of bfloat16x2 meets
// two of W, so that half of L1 is A's.
template <class T>
constexpr int chunk_bytes = operand_parts<T> == 1 ? 32 << 10 : 16 << 10;
// So many blocks of rows, whose sums lie in memory meanwhile.
constexpr int blocks_at_once = 8;

// A block whose sums are there, finished a few rows at a time.
template <class T, class Formulas, class Args>
struct BlockBehind {
    static constexpr int at_once = 8, pieces = block_rows / at_once;  // as many rows as registers take

    const Args& args;
    const StoredTile<T, block_rows>* sum = nullptr;
    std::int64_t panel = 0, row = 0;
    int rows = 0, done = 0;

    RC_HD void set(const StoredTile<T, block_rows>& its_sum, std::int64_t its_panel, std::int64_t its_row,
                   int its_rows) {
        sum = &its_sum, panel = its_panel, row = its_row, rows = its_rows, done = 0;
    }
    RC_HD void next() {
        if (done >= rows) return;
        Formulas epilogue = epilogue_of<T, Formulas>(args, panel);
        const int last = done + at_once < rows ? done + at_once : rows;
        finish_stored<at_once>(*sum, done, last, row, epilogue);
        done = last;
    }
    RC_HD void finish() {
        while (done < rows) next();
    }
};

template <class T>
struct TilePanelLoop {
    template <class Formulas, class Args>
    static void run(const Args& args, std::int64_t first, std::int64_t last) {
        const MatrixUnit<T> unit{};
        BlockBehind<T, Formulas, Args> behind{args};
        TilePanelLoop sums(args.sources, args.n_sources);
        const std::int64_t rows = args.n_sources > 0 ? args.rows : block_rows;  // without a product, memory's order
        for (std::int64_t row = 0; row < args.rows; row += rows)
            for (std::int64_t panel = first; panel < last; ++panel)
                for (std::int64_t begin = row; begin < row + rows && begin < args.rows; begin += group_rows) {
                    const std::int64_t left =
                        args.rows - begin < row + rows - begin ? args.rows - begin : row + rows - begin;
                    sums.add_group(panel, begin, left < group_rows ? static_cast<int>(left) : group_rows, begin == row,
                                   behind);
                }
        behind.finish();
    }

private:
    static constexpr int group_rows = blocks_at_once * block_rows;
    static constexpr int chunk_steps = chunk_bytes<T> / Steps<T>::bytes;

    TilePanelLoop(const Source<T>* sources, int n) : sources_(sources), n_(n), steps_(steps_of(sources, n)) {}

    // One panel of the sums of rows [begin, begin + rows).
    template <class Behind>
    RC_HD void add_group(std::int64_t panel, std::int64_t begin, int rows, bool fetches, Behind& behind) {
        const std::int64_t parts = steps_ > most_steps ? (steps_ + most_steps - 1) / most_steps : 1;
        const bool in_chunks = chunks_of(steps_) > 1, fetches_ahead = fetches && steps_ > chunk_steps / 2,
                   once = operand_parts<T> == 1 && steps_ > chunk_steps / 2;
        const int blocks = (rows + block_rows - 1) / block_rows, fetched = fetches_ahead ? Steps<T>::lines : 0;
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
                    for (int step = 0; step < here; ++step) {
                        // The blocks of rows share the lines of each step.
                        if (fetched > 0)
                            next.fetch_next_panel(fetched * block / blocks, fetched * (block + 1) / blocks);
                        once ? next.template add<true>(begin + row, rows_here)
                             : next.template add<false>(begin + row, rows_here);
                        for (int piece = 0; piece < pieces_of_a_step; ++piece) behind.next();
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
    static RC_HD std::int64_t chunks_of(std::int64_t steps) {
        const std::int64_t chunks = (steps + chunk_steps / 2) / chunk_steps;
        return chunks > 1 ? chunks : 1;
    }

    const Source<T>* sources_;
    const int n_;
    const std::int64_t steps_;
    StoredTile<T, block_rows> sums_[blocks_at_once], parts_[blocks_at_once];
};

template <>
struct PanelLoop<bfloat16> : TilePanelLoop<bfloat16> {};
template <>
struct PanelLoop<bfloat16x2> : TilePanelLoop<bfloat16x2> {};
