// What each op does to two elements. Every op is free of branches, so that loops over it become SIMD code.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "elements.hpp"

namespace collx {

template <class T>
constexpr bool is_complex = false;
template <class T>
constexpr bool is_complex<Complex<T>> = true;

// Unsigned, and at least as wide as what C++ promotes to: sums and products wrap around instead of overflowing.
template <std::integral T>
[[gnu::always_inline]] inline auto wrapping(T x) noexcept {
    return static_cast<std::common_type_t<std::make_unsigned_t<T>, unsigned>>(x);
}

template <class T>
constexpr typename Format<T>::Word magnitude = std::numeric_limits<typename Format<T>::Word>::max() >> 1;

// 1 or 0: a number, since && and || would be branches. Floats go by their bits: loops that mix compares of floats with
// integers do not become SIMD code.
template <class T>
[[gnu::always_inline]] inline unsigned truth(T x) noexcept {
    if constexpr (is_complex<T>) return truth(x.re) | truth(x.im);
    else if constexpr (std::same_as<T, Boolean>) return x.bits != 0;
    else if constexpr (std::integral<T>) return x != 0;
    else return (std::bit_cast<typename Format<T>::Word>(x) & magnitude<T>) != 0;  // -0 is false
}

template <class T>
[[gnu::always_inline]] inline T element(unsigned truth) noexcept {
    if constexpr (is_complex<T>) return {element<decltype(T::re)>(truth), 0};
    else if constexpr (std::same_as<T, Boolean>) return {static_cast<std::uint8_t>(truth)};
    else if constexpr (std::integral<T>) return static_cast<T>(truth);
    else return std::bit_cast<T>(static_cast<typename Format<T>::Word>(truth * Format<T>::one));
}

struct And {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept { return element<T>(truth(a) & truth(b)); }
};

struct Or {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept { return element<T>(truth(a) | truth(b)); }
};

struct Xor {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept { return element<T>(truth(a) ^ truth(b)); }
};

struct BitAnd {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept { return static_cast<T>(a & b); }
};

struct BitOr {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept { return static_cast<T>(a | b); }
};

struct BitXor {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept { return static_cast<T>(a ^ b); }
};

struct Sum {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept {
        if constexpr (is_complex<T>) return {a.re + b.re, a.im + b.im};
        else if constexpr (Small<T>) return T::narrow(a.wide() + b.wide());
        else if constexpr (std::integral<T>) return static_cast<T>(wrapping(a) + wrapping(b));
        else return a + b;
    }
};

struct Product {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept {
        if constexpr (is_complex<T>) return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
        else if constexpr (Small<T>) return T::narrow(a.wide() * b.wide());
        else if constexpr (std::integral<T>) return static_cast<T>(wrapping(a) * wrapping(b));
        else return a * b;
    }
};

// Floats as signed integers of the same order, with -0 below +0 and every NaN at the end that wins. `flipped` is its
// own inverse, so it leads back to the bits; all NaNs become one.
template <bool smaller, class T>
struct Order {
    using Word = typename Format<T>::Word;
    using Key = std::make_signed_t<Word>;
    static constexpr Key most = std::numeric_limits<Key>::max();
    static constexpr Key winner = smaller ? std::numeric_limits<Key>::min() : most;

    [[gnu::always_inline]] static Key flipped(Key x) noexcept {
        return static_cast<Key>(x ^ ((x >> (sizeof(Key) * 8 - 1)) & most));
    }

    [[gnu::always_inline]] static Key key(T x) noexcept {
        const auto bits = std::bit_cast<Key>(x);
        const bool nan = static_cast<Key>(bits & most) > static_cast<Key>(Format<T>::largest);
        return select(nan, winner, flipped(bits));
    }
};

template <bool smaller>
struct Extreme {
    template <class T>
    [[gnu::always_inline]] static T apply(T a, T b) noexcept {
        if constexpr (std::integral<T>) {
            return (smaller ? b < a : a < b) ? b : a;
        } else {
            using Floats = Order<smaller, T>;
            return std::bit_cast<T>(Floats::flipped(apply(Floats::key(a), Floats::key(b))));
        }
    }
};

using Min = Extreme<true>;
using Max = Extreme<false>;

// Division by the number of ranks, which ends an avg.
template <class T>
[[gnu::always_inline]] inline T divided(T x, std::int64_t size) noexcept {
    if constexpr (is_complex<T>) return {divided(x.re, size), divided(x.im, size)};
    else if constexpr (Small<T>) return T::narrow(x.wide() / static_cast<float>(size));
    else return x / static_cast<T>(size);
}

}  // namespace collx
