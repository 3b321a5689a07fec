// The epilogue on sums that lie in memory, a block of rows in registers at a time. Included inside an ISA's namespace.

template <class T, int rows, class Epilogue>
struct StoredBlocks {
    const StoredTile<T, rows>& sum;
    std::int64_t row;
    Epilogue& epilogue;

    template <int MR>
    __attribute__((noinline)) void run(std::int64_t first) {
        Accumulators<T, MR, 2> some = sum.template rows<MR>(first);
        epilogue.finish_whole(some, row + first);
    }
};

// The first `count` rows of `sum`, which are those of the results from `row` on; at most `at_once` of them together.
template <int at_once, class T, int rows, class Epilogue>
RC_HD void finish_stored(const StoredTile<T, rows>& sum, int count, std::int64_t row, Epilogue& epilogue) {
    if (!Epilogue::in_registers || !epilogue.whole()) return epilogue.finish_from_memory(sum.at[0], count, row);
    StoredBlocks<T, rows, Epilogue> blocks{sum, row, epilogue};
    visit_blocks<at_once>(0, count, blocks);
}
