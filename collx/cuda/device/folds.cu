// Folds of many sources into many targets.

// What one launch does, as its one parameter: the device reads it from its constant bank, and nothing must be copied
// there or live on. The words begin with the folds, 3 each, and end with the addresses that these name.
template <int nwords>
struct Table {
    u64 size;   // ranks, for an avg
    u64 guard;  // the address of a word that is not 0 when nothing must be touched any more; 0 for none
    u64 words[nwords - 2];
};

// As collx/cuda/kernels.py packs it. Elements from `head` on lie at multiples of 16 bytes in all memories; those before,
// and what is left over behind the last 16 bytes, go one by one.
struct Fold {
    u64 count, head;
    u16 pointers, sources, targets, flags;
};
constexpr u16 scaled = 1, scattered = 2;

template <class Word, int n>
struct Words { Word at[n]; };

// Elements that are moved at once: as many as 16 bytes hold where `whole`, otherwise one. They are kept as they came, as
// taken apart they would fill four times the registers.
template <class T, bool whole>
constexpr int lanes = whole ? 16 / sizeof(T) : 1;
template <class T, bool whole>
using Lanes = Words<T, lanes<T, whole>>;
template <class T, bool whole>
using Pack = either<whole, Words<u32, 4>, Words<T, 1>>;

// An element, word by word. Volatile as below.
template <class Word, class T>
INLINE T loaded(u64 address) {
    constexpr int n = sizeof(T) / sizeof(Word);
    Words<Word, n> words;
#pragma unroll
    for (int i = 0; i < n; ++i) words.at[i] = reinterpret_cast<const volatile Word*>(address)[i];
    return bits<T>(words);
}

template <class Word, class T>
INLINE void stored(u64 address, T x) {
    constexpr int n = sizeof(T) / sizeof(Word);
    const auto words = bits<Words<Word, n>>(x);
#pragma unroll
    for (int i = 0; i < n; ++i) reinterpret_cast<volatile Word*>(address)[i] = words.at[i];
}

// Never from L1, which no other GPU's write reaches. Volatile, so that loads are issued in the order of the text: those
// of a turn before the first use, and before the stores to a target that is one of the sources.
template <class T, bool whole>
INLINE Pack<T, whole> load(u64 address, bool scatter) {
    Pack<T, whole> pack;
    if constexpr (whole) {
#ifdef __CUDA_ARCH__
        asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(pack.at[0]), "=r"(pack.at[1]), "=r"(pack.at[2]), "=r"(pack.at[3]) : "l"(address));
#else
        __builtin_memcpy(&pack, reinterpret_cast<const void*>(address), sizeof(pack));
#endif
    } else {
        pack.at[0] = scatter ? loaded<u8, T>(address) : loaded<typename Kind<T>::Word, T>(address);
    }
    return pack;
}

template <class T, bool whole>
INLINE void store(u64 address, const Pack<T, whole>& pack, bool scatter) {
    if constexpr (whole) {
#ifdef __CUDA_ARCH__
        asm volatile("st.global.v4.u32 [%4], {%0, %1, %2, %3};"
                     :: "r"(pack.at[0]), "r"(pack.at[1]), "r"(pack.at[2]), "r"(pack.at[3]), "l"(address));
#else
        __builtin_memcpy(reinterpret_cast<void*>(address), &pack, sizeof(pack));
#endif
    } else if (scatter) {
        stored<u8>(address, pack.at[0]);
    } else {
        stored<typename Kind<T>::Word>(address, pack.at[0]);
    }
}

// A fold whose result is of type T and runs as a T or as a float32.
template <class T, class Operation>
struct Running {
    static constexpr bool wide = Kind<T>::small && Operation::widens;
    using Value = either<wide, float, T>;

    static INLINE Value opened(T x) {
        if constexpr (wide) return x.wide();
        else return x;
    }

    static INLINE T closed(Value x) {
        if constexpr (wide) return T::narrow(x);
        else return x;
    }
};

// The fold of one table entry, as each thread knows it.
struct Task {
    const u64* sources;
    const u64* targets;
    u32 nsources, ntargets;
    u64 size;
    bool scale, scatter;
};

// Folds some packs of every source, `stride` bytes apart from `offset` on and as far as `end`.
template <class T, class Operation, bool whole, int rows>
INLINE void fold(const Task& task, u64 offset, u64 stride, u64 end) {
    using Run = Running<T, Operation>;
    constexpr int columns = Operation::columns, n = lanes<T, whole>;
    typename Run::Value value[rows][n];
    for (u32 first = 0; first < task.nsources; first += columns) {
        Pack<T, whole> given[columns][rows];
#pragma unroll
        for (int column = 0; column < columns; ++column)
            if (first + column < task.nsources)
#pragma unroll
                for (int row = 0; row < rows; ++row)
                    if (const u64 at = offset + row * stride; row == 0 || at < end)
                        given[column][row] = load<T, whole>(task.sources[first + column] + at, task.scatter);
#pragma unroll
        for (int column = 0; column < columns; ++column)
            if (first + column < task.nsources)
#pragma unroll
                for (int row = 0; row < rows; ++row) {
                    const auto apart = bits<Lanes<T, whole>>(given[column][row]);
#pragma unroll
                    for (int lane = 0; lane < n; ++lane) {
                        const auto next = Run::opened(apart.at[lane]);
                        auto& sofar = value[row][lane];
                        sofar = first + column == 0 ? next : Operation::apply(sofar, next);
                    }
                }
    }
    if constexpr (Operation::widens)
        if (task.scale)
#pragma unroll
            for (int row = 0; row < rows; ++row)
#pragma unroll
                for (int lane = 0; lane < n; ++lane) value[row][lane] = divided(value[row][lane], task.size);
    Pack<T, whole> result[rows];
#pragma unroll
    for (int row = 0; row < rows; ++row) {
        Lanes<T, whole> apart;
#pragma unroll
        for (int lane = 0; lane < n; ++lane) apart.at[lane] = Run::closed(value[row][lane]);
        result[row] = bits<Pack<T, whole>>(apart);
    }
    for (u32 target = 0; target < task.ntargets; ++target)
#pragma unroll
        for (int row = 0; row < rows; ++row)
            if (const u64 at = offset + row * stride; row == 0 || at < end)
                store<T, whole>(task.targets[target] + at, result[row], task.scatter);
}

// blockIdx.y chooses the fold; threads of its blocks take packs in turn.
template <class T, class Operation, int nwords>
INLINE void folds(const Table<nwords>& table) {
    if (table.guard && *reinterpret_cast<const volatile u64*>(table.guard)) return;
    const u64* const words = table.words + 3 * blockIdx.y;
    const auto entry = bits<Fold>(Words<u64, 3>{{words[0], words[1], words[2]}});
    const u64* const sources = table.words + entry.pointers;
    const Task task{sources,    sources + entry.sources,     entry.sources,                  entry.targets,
                    table.size, (entry.flags & scaled) != 0, (entry.flags & scattered) != 0};

    using Whole = either<Operation::moves, u64, T>;
    constexpr int rows = sizeof(Whole) == 1 ? 1 : Operation::rows;
    const u64 threads = u64{gridDim.x} * blockDim.x, begin = u64{blockIdx.x} * blockDim.x + threadIdx.x;
    const u64 first = entry.head * sizeof(T);
    const u64 end = first + (entry.count - entry.head) * sizeof(T) / 16 * 16;
    for (u64 at = first + begin * 16; at < end; at += rows * threads * 16)
        fold<Whole, Operation, true, rows>(task, at, threads * 16, end);
    for (u64 at = begin * sizeof(T); at < entry.count * sizeof(T) - (end - first); at += threads * sizeof(T))
        fold<T, Operation, false, 1>(task, at < first ? at : at + (end - first), 0, 0);
}
