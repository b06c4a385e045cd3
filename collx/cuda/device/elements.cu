// What GPUs run: folds of memory that every rank sees, and the signals of spin mode.
//
// collx/cuda/kernels.py joins the files of this folder, adds a wrapper for each kernel that is asked for, and compiles
// those alone. There is no #include, so that NVRTC needs no header, and all but what stands under __CUDA_ARCH__ is plain
// C++17, so that the tests compile the same text for the host. No product and sum is contracted: --fmad=false.

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

// A bool as NumPy stores it; any byte but 0 is true.
struct Boolean { u8 bits; };

template <class T>
struct Complex { T re, im; };

// A float of 1 + E + M bits, as csrc/elements.hpp has it. A fold must be bound by memory and not by arithmetic, so what a
// GPU converts by an instruction is not left to ten others.
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
        // float16, what is its upper byte, and what newer GPUs know.
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
    static constexpr u8 one = 1;
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
