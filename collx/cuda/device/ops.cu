// What each op does to two elements: as csrc/ops.hpp has it, but that 16-bit and 8-bit floats are summed and multiplied
// as float32 over a whole fold, and rounded once.

INLINE u32 truth(Boolean x) { return x.bits != 0; }
template <class T>
INLINE u32 truth(T x) {
    if constexpr (Kind<T>::complex) return truth(x.re) | truth(x.im);
    else if constexpr (Kind<T>::integral) return x != 0;
    else return static_cast<Unsigned<sizeof(T)>>(bits<Unsigned<sizeof(T)>>(x) << 1) != 0;  // -0 is false
}

template <class T>
INLINE T element(u32 truth) {
    if constexpr (Kind<T>::complex) return {element<decltype(T::re)>(truth), 0};
    else if constexpr (Kind<T>::integral) return static_cast<T>(truth);
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
        if constexpr (Kind<T>::complex) return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
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
    else if constexpr (Kind<T>::integral) return x;
    else return x / static_cast<T>(size);
}
