// A panel's columns of a row, where all of them exist and where the matrix ends in them: what reads and writes rows is
// told which. Included inside the namespace of one instruction set.

// All columns, or those of V vectors, of the last of which the first ones.
struct AllColumns {
    static constexpr int vectors = 2;
};
template <int V>
struct SomeColumns {
    static constexpr int vectors = V;
    FirstLanes last;
};
// Vector v of a row that begins at p.
template <int v, class T>
RC_HD Vec<Compute<T>> read_vector(const T* p, AllColumns) {
    return read(p + v * lanes_of<T>);
}
template <int v, int V, class T>
RC_HD Vec<Compute<T>> read_vector(const T* p, SomeColumns<V> columns) {
    if constexpr (v == V - 1) return read(p + v * lanes_of<T>, columns.last);
    return v < V ? read(p + v * lanes_of<T>) : Vec<Compute<T>>();
}
template <class T>
RC_HD Both<Compute<T>> read_both(const T* p, AllColumns) {
    return read_both(p);
}
template <class T>
RC_HD void write_both(Both<Compute<T>> x, T* p, AllColumns) {
    write_both(x, p);
}
template <class T, int V>
RC_HD Both<Compute<T>> read_both(const T* p, SomeColumns<V> columns) {
    return {read_vector<0>(p, columns), read_vector<1>(p, columns)};
}
template <class T, int V>
RC_HD void write_both(Both<Compute<T>> x, T* p, SomeColumns<V> columns) {
    if constexpr (V == 1) return write(x.low, p, columns.last);
    write(x.low, p);
    write(x.high, p + lanes_of<T>, columns.last);
}
