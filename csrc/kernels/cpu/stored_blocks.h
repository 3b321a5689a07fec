// The epilogue on sums that lie in memory, a block of rows in registers at a time. Included inside an ISA's namespace.

template <class T, int rows, class Epilogue>
struct StoredBlocks {
    const StoredTile<T, rows>& sum;
    std::int64_t row;
    Epilogue& epilogue;

    template <int MR>
    __attribute__((noinline)) void run(std::int64_t first) {
        Accumulators<T, MR, 2> some = sum.template rows<MR>(first);
        epilogue.finish_rows(some, row + first);
    }
};

// Rows [first, last) of `sum`, whose row 0 is the results' row `row`; at most `at_once` of them together.
template <int at_once, class T, int rows, class Epilogue>
RC_HD void finish_stored(const StoredTile<T, rows>& sum, int first, int last, std::int64_t row, Epilogue& epilogue) {
    if (!Epilogue::in_registers || !epilogue.whole())
        return epilogue.finish_from_memory(sum.at[first], last - first, row + first);
    StoredBlocks<T, rows, Epilogue> blocks{sum, row, epilogue};
    if (last - first == at_once) return blocks.template run<at_once>(first);
    visit_blocks<at_once>(first, last, blocks);
}
