// The elements that kernels compute with: storage types narrower than float32, and complex numbers.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstdint>

namespace collx {

// `yes` or `no` by masks: compilers turn a chain of ?: into branches, and those keep loops from becoming SIMD code.
template <std::integral T>
[[gnu::always_inline]] constexpr T select(bool condition, T yes, T no) noexcept {
    return static_cast<T>(no ^ ((yes ^ no) & -static_cast<T>(condition)));
}

// A bool as NumPy stores it; any byte but 0 is true.
struct Boolean {
    std::uint8_t bits;
};

template <class T>
struct Complex {
    T re, im;
};

// A float of 1 + E + M bits. With `infinite`, the top exponent holds infinities and NaNs as in IEEE 754; without it
// only the all-ones pattern is special, a NaN, and overflow gives that.
//
// All conversions are branch-free and work on integers where they can, so that loops over them become SIMD code.
// Subnormals never pass through a subnormal float32: a process that flushes those to zero computes the same.
template <class Storage, int E, int M, bool infinite>
struct SmallFloat {
    Storage bits;

    static constexpr int shift = 23 - M;
    static constexpr int bias = (1 << (E - 1)) - 1;
    static constexpr std::uint32_t rebias = static_cast<std::uint32_t>(127 - bias) << 23;
    static constexpr std::uint32_t magnitude = (1U << (E + M)) - 1;
    static constexpr std::uint32_t least_normal = 1U << M;
    static constexpr std::uint32_t top = infinite ? ((1U << E) - 1) << M : magnitude;
    static constexpr std::uint32_t nan = infinite ? top | (1U << (M - 1)) : magnitude;
    // One ulp at `unit_ulp` is the least subnormal: adding it lets the FPU round a subnormal result.
    static constexpr std::uint32_t unit_ulp = static_cast<std::uint32_t>(127 + 23 + 1 - bias - M) << 23;
    static constexpr std::uint32_t least_subnormal = static_cast<std::uint32_t>(127 + 1 - bias - M) << 23;

    static constexpr Storage one = static_cast<Storage>(bias << M);
    static constexpr Storage largest = static_cast<Storage>(infinite ? top : top - 1);

    [[gnu::always_inline]] float wide() const noexcept {
        const std::uint32_t abs = bits & magnitude;
        const std::uint32_t sign = static_cast<std::uint32_t>(bits >> (E + M)) << 31;
        const float ulps = static_cast<float>(static_cast<std::int32_t>(abs));
        const auto subnormal = std::bit_cast<std::uint32_t>(ulps * std::bit_cast<float>(least_subnormal));
        const std::uint32_t normal = (abs << shift) + rebias;
        const std::uint32_t special = (abs << shift) | (infinite ? 0x7F800000U : 0x7FC00000U);
        const std::uint32_t finite = select(abs < least_normal, subnormal, normal);
        return std::bit_cast<float>(select(abs >= top, special, finite) | sign);
    }

    [[gnu::always_inline]] static SmallFloat narrow(float value) noexcept {
        const auto word = std::bit_cast<std::uint32_t>(value);
        const std::uint32_t abs = word & 0x7FFFFFFFU;
        const std::uint32_t half = (1U << (shift - 1)) - 1 + ((abs >> shift) & 1);
        const std::uint32_t normal = std::min((abs - rebias + half) >> shift, top);
        const float rounded = std::bit_cast<float>(abs) + std::bit_cast<float>(unit_ulp);
        const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(rounded) - unit_ulp;
        const std::uint32_t number = select(abs < rebias + (1U << 23), subnormal, normal);
        return {static_cast<Storage>(select(abs > 0x7F800000U, nan, number) | ((word >> 31) << (E + M)))};
    }
};

using Float16 = SmallFloat<std::uint16_t, 5, 10, true>;
using Float8E4M3FN = SmallFloat<std::uint8_t, 4, 3, false>;
using Float8E5M2 = SmallFloat<std::uint8_t, 5, 2, true>;

// The upper half of a float32.
struct BFloat16 {
    std::uint16_t bits;

    static constexpr std::uint16_t one = 0x3F80;
    static constexpr std::uint16_t largest = 0x7F80;

    [[gnu::always_inline]] float wide() const noexcept {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }

    [[gnu::always_inline]] static BFloat16 narrow(float value) noexcept {
        const auto word = std::bit_cast<std::uint32_t>(value);
        const std::uint32_t rounded = (word + 0x7FFFU + ((word >> 16) & 1)) >> 16;
        const std::uint32_t nan = ((word >> 16) & 0x8000U) | 0x7FC0U;
        return {static_cast<std::uint16_t>(select((word & 0x7FFFFFFFU) > 0x7F800000U, nan, rounded))};
    }
};

template <class T>
concept Small = requires(T x) { T::narrow(x.wide()); };

// The bits of a float: those of 1, and the largest magnitude that is not a NaN.
template <class T>
struct Format {
    using Word = decltype(T::bits);
    static constexpr Word one = T::one;
    static constexpr Word largest = T::largest;
};

template <>
struct Format<float> {
    using Word = std::uint32_t;
    static constexpr Word one = 0x3F800000U;
    static constexpr Word largest = 0x7F800000U;
};

template <>
struct Format<double> {
    using Word = std::uint64_t;
    static constexpr Word one = 0x3FF0000000000000U;
    static constexpr Word largest = 0x7FF0000000000000U;
};

}  // namespace collx
