// What GPUs run: folds of memory that every rank sees, and the signals of spin mode.
//
// collx/cuda/kernels.py appends a wrapper per kernel that is asked for, and compiles that alone. There is no #include,
// so that NVRTC needs no header, and all but what stands under __CUDA_ARCH__ is plain C++, so that the tests compile
// the same text for the host. Semantics are those of csrc/ops.hpp, but that a fold of 16-bit or 8-bit floats is summed
// or multiplied in float32 over all its sources and rounded once. A program of its own, it has none of csrc's headers.

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned;
using u64 = unsigned long long;
using i8 = signed char;
using i16 = short;
using i32 = int;
using i64 = long long;

#define INLINE __device__ __forceinline__

template <class To, class From>
INLINE To bits(From x) {
    return __builtin_bit_cast(To, x);
}

template <bool condition, class Yes, class No>
struct Either { using type = Yes; };
template <class Yes, class No>
struct Either<false, Yes, No> { using type = No; };
template <bool condition, class Yes, class No>
using either = typename Either<condition, Yes, No>::type;

template <int bytes>
using Unsigned = either<bytes == 1, u8, either<bytes == 2, u16, either<bytes == 4, u32, u64>>>;
template <int bytes>
using Signed = either<bytes == 1, i8, either<bytes == 2, i16, either<bytes == 4, i32, i64>>>;

// ---- elements

// A bool as NumPy stores it; any byte but 0 is true.
struct Boolean { u8 bits; };

template <class T>
struct Complex { T re, im; };

// A float of 1 + E + M bits, as csrc/elements.hpp has it. Memory, not arithmetic, must bound a fold, so conversions that
// the GPU has as an instruction go by that; it would make 10 of the integer ones.
template <class Storage, int E, int M, bool infinite>
struct SmallFloat {
    Storage bits;

    static constexpr int shift = 23 - M;
    static constexpr int bias = (1 << (E - 1)) - 1;
    static constexpr u32 rebias = static_cast<u32>(127 - bias) << 23;
    static constexpr u32 magnitude = (1U << (E + M)) - 1;
    static constexpr u32 least_normal = 1U << M;
    static constexpr u32 top = infinite ? ((1U << E) - 1) << M : magnitude;
    static constexpr u32 nan = infinite ? top | (1U << (M - 1)) : magnitude;
    static constexpr u32 unit_ulp = static_cast<u32>(127 + 23 + 1 - bias - M) << 23;
    static constexpr u32 least_subnormal = static_cast<u32>(127 + 1 - bias - M) << 23;

    static constexpr Storage one = static_cast<Storage>(bias << M);
    static constexpr Storage largest = static_cast<Storage>(infinite ? top : top - 1);

    INLINE float wide() const {
#ifdef __CUDA_ARCH__
        // The formats that are float16 or its upper byte, and one that newer GPUs know.
        if constexpr (E == 5) {
            float value;
            const u16 half = static_cast<u16>(bits << (10 - M));
            asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
            return value;
        }
#if __CUDA_ARCH__ >= 890
        if constexpr (E == 4) {
            float value;
            const u16 pair = bits;
            asm("{.reg .b32 two; .reg .b16 low, high; cvt.rn.f16x2.e4m3x2 two, %1; mov.b32 {low, high}, two;"
                " cvt.f32.f16 %0, low;}" : "=f"(value) : "h"(pair));
            return value;
        }
#endif
#endif
        const u32 abs = bits & magnitude;
        const u32 sign = static_cast<u32>(bits >> (E + M)) << 31;
        const float ulps = static_cast<float>(static_cast<i32>(abs));
        const u32 subnormal = ::bits<u32>(ulps * ::bits<float>(least_subnormal));
        const u32 normal = (abs << shift) + rebias;
        const u32 special = (abs << shift) | (infinite ? 0x7F800000U : 0x7FC00000U);
        return ::bits<float>((abs >= top ? special : abs < least_normal ? subnormal : normal) | sign);
    }

    static INLINE SmallFloat narrow(float value) {
#ifdef __CUDA_ARCH__
        if constexpr (M == 10) {
            u16 half;
            asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
            return {static_cast<Storage>(half)};
        }
#endif
        // 8-bit floats too: the GPU's own conversion to those ends at the largest number, where NumPy overflows.
        const u32 word = ::bits<u32>(value);
        const u32 abs = word & 0x7FFFFFFFU;
        const u32 half = (1U << (shift - 1)) - 1 + ((abs >> shift) & 1);
        const u32 rounded = (abs - rebias + half) >> shift;
        const u32 normal = rounded < top ? rounded : top;
        const u32 subnormal = ::bits<u32>(::bits<float>(abs) + ::bits<float>(unit_ulp)) - unit_ulp;
        const u32 number = abs < rebias + (1U << 23) ? subnormal : normal;
        return {static_cast<Storage>((abs > 0x7F800000U ? nan : number) | ((word >> 31) << (E + M)))};
    }
};

using Float16 = SmallFloat<u16, 5, 10, true>;
using Float8E4M3FN = SmallFloat<u8, 4, 3, false>;
using Float8E5M2 = SmallFloat<u8, 5, 2, true>;

// The upper half of a float32.
struct BFloat16 {
    u16 bits;

    static constexpr u16 one = 0x3F80;
    static constexpr u16 largest = 0x7F80;

    INLINE float wide() const { return ::bits<float>(static_cast<u32>(bits) << 16); }

    static INLINE BFloat16 narrow(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        u16 half;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
        return {half};
#else
        const u32 word = ::bits<u32>(value);
        const u32 rounded = (word + 0x7FFFU + ((word >> 16) & 1)) >> 16;
        const u32 nan = ((word >> 16) & 0x8000U) | 0x7FC0U;
        return {static_cast<u16>((word & 0x7FFFFFFFU) > 0x7F800000U ? nan : rounded)};
#endif
    }
};

// What is known of an element's type. `Word`: what it can be loaded by, where no more is sure of its address.
template <class T>
struct Kind {
    using Word = Unsigned<sizeof(T)>;
    static constexpr bool integral = true, complex = false, small = false;
};
template <>
struct Kind<Boolean> {
    using Word = u8;
    static constexpr bool integral = false, complex = false, small = false;
};
template <>
struct Kind<float> {
    using Word = u32;
    static constexpr bool integral = false, complex = false, small = false;
    static constexpr u32 one = 0x3F800000U, largest = 0x7F800000U;
};
template <>
struct Kind<double> {
    using Word = u64;
    static constexpr bool integral = false, complex = false, small = false;
    static constexpr u64 one = 0x3FF0000000000000U, largest = 0x7FF0000000000000U;
};
template <class T>
struct Kind<Complex<T>> {
    using Word = typename Kind<T>::Word;
    static constexpr bool integral = false, complex = true, small = false;
};
template <class Storage, int E, int M, bool infinite>
struct Kind<SmallFloat<Storage, E, M, infinite>> {
    using Float = SmallFloat<Storage, E, M, infinite>;
    using Word = Storage;
    static constexpr bool integral = false, complex = false, small = true;
    static constexpr Storage one = Float::one, largest = Float::largest;
};
template <>
struct Kind<BFloat16> {
    using Word = u16;
    static constexpr bool integral = false, complex = false, small = true;
    static constexpr u16 one = BFloat16::one, largest = BFloat16::largest;
};

// ---- ops

template <class T>
INLINE u32 truth(T x) {
    if constexpr (Kind<T>::complex) return truth(x.re) | truth(x.im);
    else if constexpr (Kind<T>::integral) return x != 0;
    else if constexpr (sizeof(x) == sizeof(Boolean) && !Kind<T>::small) return x.bits != 0;
    else return static_cast<Unsigned<sizeof(T)>>(bits<Unsigned<sizeof(T)>>(x) << 1) != 0;  // -0 is false
}

template <class T>
INLINE T element(u32 truth) {
    if constexpr (Kind<T>::complex) return {element<decltype(T::re)>(truth), 0};
    else if constexpr (Kind<T>::integral) return static_cast<T>(truth);
    else if constexpr (sizeof(T) == sizeof(Boolean) && !Kind<T>::small) return {static_cast<u8>(truth)};
    else return bits<T>(static_cast<Unsigned<sizeof(T)>>(truth ? Kind<T>::one : 0));
}

// An op says what runs through a fold: the elements themselves, or float32 where `widens`. `rows` of packs by `columns`
// of sources are loaded at once: 8 loads of 16 bytes in flight in each thread.
struct Op {
    static constexpr bool moves = false, widens = false;
    static constexpr int rows = 2, columns = 4;
};

struct Copy : Op {
    static constexpr bool moves = true;
    static constexpr int rows = 4, columns = 1;
    template <class T>
    static INLINE T apply(T a, T) { return a; }
};

struct And : Op {
    template <class T>
    static INLINE T apply(T a, T b) { return element<T>(truth(a) & truth(b)); }
};

struct Or : Op {
    template <class T>
    static INLINE T apply(T a, T b) { return element<T>(truth(a) | truth(b)); }
};

struct Xor : Op {
    template <class T>
    static INLINE T apply(T a, T b) { return element<T>(truth(a) ^ truth(b)); }
};

struct BitAnd : Op {
    template <class T>
    static INLINE T apply(T a, T b) { return static_cast<T>(a & b); }
};

struct BitOr : Op {
    template <class T>
    static INLINE T apply(T a, T b) { return static_cast<T>(a | b); }
};

struct BitXor : Op {
    template <class T>
    static INLINE T apply(T a, T b) { return static_cast<T>(a ^ b); }
};

// Unsigned, and at least as wide as what C++ promotes to: sums and products wrap around.
template <class T>
INLINE auto wrapping(T x) {
    return static_cast<Unsigned<(sizeof(T) < 4 ? 4 : sizeof(T))>>(x);
}

struct Sum : Op {
    static constexpr bool widens = true;
    template <class T>
    static INLINE T apply(T a, T b) {
        if constexpr (Kind<T>::complex) return {a.re + b.re, a.im + b.im};
        else if constexpr (Kind<T>::integral) return static_cast<T>(wrapping(a) + wrapping(b));
        else return a + b;
    }
};

struct Product : Op {
    static constexpr bool widens = true;
    template <class T>
    static INLINE T apply(T a, T b) {
        if constexpr (Kind<T>::complex)
            return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
        else if constexpr (Kind<T>::integral) return static_cast<T>(wrapping(a) * wrapping(b));
        else return a * b;
    }
};

// Floats as signed integers of the same order, with -0 below +0 and every NaN, which become one, at the end that wins.
template <bool smaller>
struct Extreme : Op {
    template <class Key>
    static INLINE Key flipped(Key x) {
        constexpr Key most = static_cast<Key>(static_cast<Unsigned<sizeof(Key)>>(~Unsigned<sizeof(Key)>{0}) >> 1);
        return static_cast<Key>(x < 0 ? x ^ most : x);
    }

    template <class T>
    static INLINE auto key(T x) {
        using Key = Signed<sizeof(T)>;
        constexpr Key most = static_cast<Key>(static_cast<Unsigned<sizeof(T)>>(~Unsigned<sizeof(T)>{0}) >> 1);
        constexpr Key winner = static_cast<Key>(smaller ? ~most : most);
        const Key word = bits<Key>(x);
        return static_cast<Key>(word & most) > static_cast<Key>(Kind<T>::largest) ? winner : flipped(word);
    }

    template <class T>
    static INLINE T apply(T a, T b) {
        if constexpr (Kind<T>::integral) {
            return (smaller ? b < a : a < b) ? b : a;
        } else {
            return bits<T>(flipped(apply(key(a), key(b))));
        }
    }
};

using Min = Extreme<true>;
using Max = Extreme<false>;

// Division by the number of ranks, which ends an avg.
template <class T>
INLINE T divided(T x, u64 size) {
    if constexpr (Kind<T>::complex) return {divided(x.re, size), divided(x.im, size)};
    else if constexpr (Kind<T>::integral || sizeof(T) == sizeof(Boolean)) return x;
    else return x / static_cast<T>(size);
}

// ---- folds

// What one launch does, as its one parameter: the device reads it from its constant bank, and nothing must be copied
// there or live on. The words begin with the folds, 3 each, and end with the addresses that these name.
template <int nwords>
struct Table {
    u64 size;   // ranks, for an avg
    u64 guard;  // the address of a word that is not 0 when nothing must be touched any more; 0 for none
    u64 words[nwords - 2];
};

// As collx/cuda/kernels.py packs it. Elements from `head` on lie at multiples of 16 bytes in all memories; before that,
// and for the rest after the last 16 bytes, element goes by element.
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

    static INLINE T closed(Value x, bool scale, u64 size) {
        if constexpr (Operation::widens) x = scale ? divided(x, size) : x;
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
    Pack<T, whole> result[rows];
#pragma unroll
    for (int row = 0; row < rows; ++row) {
        Lanes<T, whole> apart;
#pragma unroll
        for (int lane = 0; lane < n; ++lane) apart.at[lane] = Run::closed(value[row][lane], task.scale, task.size);
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
    const u64* const entry = table.words + 3 * blockIdx.y;
    const u64 count = entry[0], head = entry[1];
    const auto of = bits<Words<u16, 4>>(entry[2]);
    const u16 pointers = of.at[0], nsources = of.at[1], ntargets = of.at[2], flags = of.at[3];
    const u64* const sources = table.words + pointers;
    const Task task{sources, sources + nsources, nsources, ntargets, table.size, (flags & scaled) != 0,
                    (flags & scattered) != 0};

    using Whole = either<Operation::moves, u64, T>;
    constexpr int rows = sizeof(Whole) == 1 ? 1 : Operation::rows;
    const u64 threads = u64{gridDim.x} * blockDim.x, begin = u64{blockIdx.x} * blockDim.x + threadIdx.x;
    const u64 first = head * sizeof(T), end = first + (count - head) * sizeof(T) / 16 * 16;
    for (u64 at = first + begin * 16; at < end; at += rows * threads * 16)
        fold<Whole, Operation, true, rows>(task, at, threads * 16, end);
    for (u64 at = begin * sizeof(T); at < count * sizeof(T) - (end - first); at += threads * sizeof(T))
        fold<T, Operation, false, 1>(task, at < first ? at : at + (end - first), 0, 0);
}

// ---- the signals of spin mode

// Words of 64 bits, anywhere in mapped memory, that only grow while somebody waits for them. A wait is given up when the
// word at `abort` is not 0, and `limit` nanoseconds after it began; then the word at `status` is set to 1, and nothing is
// signalled or waited for any more where that is so. 0 where there is none.
template <int nwords>
struct Signals {
    u64 value, abort, limit, status, count;
    u64 words[nwords - 5];
};

INLINE u64 now() {
#ifdef __CUDA_ARCH__
    u64 nanoseconds;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(nanoseconds));
    return nanoseconds;
#else
    return host_now();
#endif
}

// Lets other threads of a host run; a GPU's do.
INLINE void pause() {
#ifndef __CUDA_ARCH__
    host_pause();
#endif
}

INLINE u64 acquired(u64 address) {
#ifdef __CUDA_ARCH__
    u64 value;
    asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
    return value;
#else
    return __atomic_load_n(reinterpret_cast<const u64*>(address), __ATOMIC_ACQUIRE);
#endif
}

INLINE void released(u64 address, u64 value) {
#ifdef __CUDA_ARCH__
    asm volatile("st.release.sys.global.u64 [%0], %1;" :: "l"(address), "l"(value) : "memory");
#else
    __atomic_store_n(reinterpret_cast<u64*>(address), value, __ATOMIC_RELEASE);
#endif
}

// Whoever acquires the value sees what this stream's kernels wrote before: the fence is for all of that.
template <int nwords>
INLINE void signal(const Signals<nwords>& signals) {
    if (signals.status && acquired(signals.status)) return;
#ifdef __CUDA_ARCH__
    __threadfence_system();
#endif
    for (u32 i = threadIdx.x; i < signals.count; i += blockDim.x) released(signals.words[i], signals.value);
}

// The clock, and the word of the host, which lies across PCIe, are looked at seldom.
template <int nwords>
INLINE void wait(const Signals<nwords>& signals) {
    if (signals.status && acquired(signals.status)) return;
    const u64 begun = signals.limit ? now() : 0;
    for (u32 i = threadIdx.x; i < signals.count; i += blockDim.x)
        for (u32 turn = 1; acquired(signals.words[i]) < signals.value; ++turn) {
            if (turn % 256) continue;
            pause();
            const bool aborted = signals.abort && acquired(signals.abort);
            if (aborted || (signals.limit && now() - begun > signals.limit)) {
                if (signals.status) released(signals.status, 1);
                return;
            }
        }
}
