// Registers in memory, and squares of numbers turned in registers.
//
// No guard, as lanes.h, and only for the CPU.

// A register in memory, wherever it begins: of a memcpy gcc makes two halves where it has no AVX-512.
template <class Pack> struct __attribute__((packed, may_alias)) Loose {
    Pack pack;
    LB_INLINE static Pack read(const void *from) { return ((const Loose *)from)->pack; }
    LB_INLINE static void write(void *to, Pack pack) { ((Loose *)to)->pack = pack; }
};

// Squares of numbers turned, `to[t][n] = from[n][t]`, as wide as registers are. Within lanes of 16 bytes
// small squares are turned first: each round deals two rows out like cards. Then the lanes are: each
// round parts those of two rows into even and odd ones. No shuffle is cheaper than these.
#if defined(__clang__)
#define LB_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LB_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (typename Register<R>::Index){__VA_ARGS__})
#endif

template <class R> struct Register {
    static const int width = LB_REGISTER / sizeof(R);
    static const int lane = 16 / sizeof(R);
    typedef R Row __attribute__((vector_size(LB_REGISTER)));
    typedef decltype(Row() < Row()) Index;
};

// Which number of two rows, one after the other, is number i of their shuffle.
template <class R> struct Shuffled {
    static const int width = Register<R>::width, lane = Register<R>::lane;
    static constexpr int dealt(int i, bool high) {
        return i / lane * lane + i % lane / 2 + (high ? lane / 2 : 0) + i % 2 * width;
    }
    static constexpr int parted(int i, bool odd) {
        return i / lane * 2 * lane + (odd ? lane : 0) + i % lane;
    }
};

template <int... i> struct Numbers {};
template <int count, int... i> struct Count : Count<count - 1, count - 1, i...> {};
template <int... i> struct Count<0, i...> {
    typedef Numbers<i...> List;
};

template <class R, class List = typename Count<Register<R>::width>::List> struct Deal;
template <class R, int... i> struct Deal<R, Numbers<i...>> {
    typedef typename Register<R>::Row Row;
    template <int... at> LB_INLINE static Row shuffle(Row a, Row b) {
        return LB_SHUFFLE(a, b, at...);
    }
    LB_INLINE static Row low(Row a, Row b) {
        return shuffle<Shuffled<R>::dealt(i, false)...>(a, b);
    }
    LB_INLINE static Row high(Row a, Row b) {
        return shuffle<Shuffled<R>::dealt(i, true)...>(a, b);
    }
    LB_INLINE static Row even(Row a, Row b) {
        return shuffle<Shuffled<R>::parted(i, false)...>(a, b);
    }
    LB_INLINE static Row odd(Row a, Row b) {
        return shuffle<Shuffled<R>::parted(i, true)...>(a, b);
    }
};

// The first `count` numbers, fewer than 2 `most`, in pieces of constant sizes.
template <int most, class R> LB_INLINE void copy(R *to, const R *from, int count) {
    bool has = count & most;
    if (has) memcpy(to, from, most * sizeof(R));
    if constexpr (most > 1) copy<most / 2>(to + has * most, from + has * most, count);
}

template <class R> struct Tile {
    static const int width = Register<R>::width, lane = Register<R>::lane;
    typedef typename Register<R>::Row Row;

    // Both ends of a row are given by functions of its number; `count` numbers of it are written.
    // (gcc keeps the rows in memory where it leaves one of these loops a loop.)
    template <class From, class To>
    LB_INLINE static void turn(const From &from, const To &to, int count) {
        Row rows[2][width];
        int now = 0;
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i) rows[now][i] = Loose<Row>::read(from(i));
#pragma GCC unroll 16
        for (int round = 1; round < lane; round *= 2) {
#pragma GCC unroll 16
            for (int i = 0; i < width; i += 2) {
                int first = i / lane * lane + i % lane / 2;
                Row a = rows[now][first], b = rows[now][first + lane / 2];
                rows[1 - now][i] = Deal<R>::low(a, b);
                rows[1 - now][i + 1] = Deal<R>::high(a, b);
            }
            now = 1 - now;
        }
#pragma GCC unroll 16
        for (int round = lane; round < width; round *= 2) {
#pragma GCC unroll 16
            for (int i = 0; i < width / 2; ++i) {
                int first = i / lane * 2 * lane + i % lane;
                Row a = rows[now][first], b = rows[now][first + lane];
                rows[1 - now][i] = Deal<R>::even(a, b);
                rows[1 - now][i + width / 2] = Deal<R>::odd(a, b);
            }
            now = 1 - now;
        }
        if (count == width) {
#pragma GCC unroll 16
            for (int i = 0; i < width; ++i) Loose<Row>::write(to(i), rows[now][i]);
        } else {
            R part[width];
#pragma GCC unroll 16
            for (int i = 0; i < width; ++i) {
                memcpy(part, &rows[now][i], sizeof(Row));
                copy<width / 2>(to(i), part, count);
            }
        }
    }
};
