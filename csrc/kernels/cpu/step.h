// What is decided of a whole batch, and what follows for what is trained. Included inside an ISA's namespace.

template <class T>
void conclude(const ConcludeArgs<T>& args) {
    double loss = 0;
    for (std::int64_t i = 0; i < args.n_losses; ++i) loss += args.losses[i];
    conclude_batch(args, loss);
}

template <class T>
void commit(const CommitArgs<T>& args) {
    if (!permits(args.permission)) return;
    for (int v = 0; v < args.count; ++v) {
        const CommittedVector<T>& vector = args.vectors[v];
        std::memcpy(vector.to, vector.from, static_cast<std::size_t>(vector.size) * sizeof *vector.to);
    }
}

// In stretches that are added in order.
template <class T>
void squares(const SquaresArgs<T>& args) {
    constexpr std::int64_t square_stretch = 4096;
    double total = 0;
    for (std::int64_t begin = 0; begin < args.size; begin += square_stretch) {
        const std::int64_t end = args.size - begin < square_stretch ? args.size : begin + square_stretch;
        double stretch = 0;
        for (std::int64_t i = begin; i < end; ++i) stretch += static_cast<double>(args.gradient[i]) * args.gradient[i];
        total += stretch;
    }
    *args.out = total;
}

template <class T>
void clip(const ClipArgs<T>& args) {
    double total = 0;
    for (std::int64_t i = 0; i < args.count; ++i) total += args.squares[i];
    *args.norm = ::sqrt(total);
    *args.factor = clip_factor(*args.norm, args.largest);
}

template <class T>
void scale(const ScaleArgs<T>& args) {
    const double factor = *args.factor;
    if (factor == 1) return;
    for (std::int64_t i = 0; i < args.size; ++i)
        args.gradient[i] = static_cast<Compute<T>>(static_cast<double>(args.gradient[i]) * factor);
}

template <class T>
void overflowed(const OverflowedArgs<T>& args) {
    for (std::int64_t i = 0; i < args.size; ++i)
        if (!is_finite(static_cast<double>(args.now[i])) && is_finite(static_cast<double>(args.before[i])))
            *args.found = 1;
}
