// Registers in memory, and squares of numbers turned in registers.
//
// No guard, as lanes.h, and only for the CPU.

// A register in memory, wherever it begins: of a memcpy gcc makes two halves where it has no AVX-512.
template <class Pack> struct __attribute__((packed, may_alias)) Loose {
    Pack pack;
    LB_INLINE static Pack read(const void *from) { return ((const Loose *)from)->pack; }
    LB_INLINE static void write(void *to, Pack pack) { ((Loose *)to)->pack = pack; }
};

#if defined(LB_X86)
// Past the caches, to where a register has its place.
template <class Pack> LB_INLINE void write_past(void *to, Pack pack) {
#if defined(__AVX512F__)
    _mm512_stream_ps((float *)to, (__m512)pack);
#elif defined(__AVX2__)
    _mm256_stream_ps((float *)to, (__m256)pack);
#else
    _mm_stream_ps((float *)to, (__m128)pack);
#endif
}
#else
template <class Pack> LB_INLINE void write_past(void *to, Pack pack) { Loose<Pack>::write(to, pack); }
#endif

// Bytes of a line of memory. What goes past the caches goes a line at a time: the CPU gathers its pieces in
// a few places only, and has to read a line of which it did not get all.
static const int LINE = 64;

// Bytes that lie side by side, in whole lines past the caches.
LB_INLINE void copy_past(char *to, const char *from, size_t count) {
    typedef float Row __attribute__((vector_size(LB_REGISTER)));
    size_t done = -(size_t)to % LINE;
    if (done > count) done = count;
    memcpy(to, from, done);
    for (; done + LINE <= count; done += LINE)
        for (int piece = 0; piece < LINE; piece += LB_REGISTER)
            write_past(to + done + piece, Loose<Row>::read(from + done + piece));
    memcpy(to + done, from + done, count - done);
}

// Squares of numbers turned, `to[t][n] = from[n][t]`, as wide as registers are. Lanes of 16 bytes are put
// in their places as they are read, which is cheaper than to move them later. The small squares within
// them are turned by dealing two rows out like cards, once or twice. No shuffle is cheaper than that.
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

// Which number of two rows, one after the other, is number i when their lower, or upper, halves are
// dealt out within lanes.
template <class R> struct Dealt {
    static const int width = Register<R>::width, lane = Register<R>::lane;
    static constexpr int from(int i, bool high) {
        return i / lane * lane + i % lane / 2 + (high ? lane / 2 : 0) + i % 2 * width;
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
    LB_INLINE static Row low(Row a, Row b) { return shuffle<Dealt<R>::from(i, false)...>(a, b); }
    LB_INLINE static Row high(Row a, Row b) { return shuffle<Dealt<R>::from(i, true)...>(a, b); }
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
    template <class From, class To>
    LB_INLINE static void turn(const From &from, const To &to, int count) {
        if (count == width) return turn(from, to);
        R square[width][width];
        turn(from, [&](int i) { return square[i]; });
        for (int i = 0; i < width; ++i) copy<width / 2>(to(i), square[i], count);
    }

    // (gcc keeps rows in memory where it leaves one of these loops a loop.)
    template <class From, class To> LB_INLINE static void turn(const From &from, const To &to) {
#pragma GCC unroll 4
        for (int part = 0; part < width; part += lane) {
            Row rows[lane];
            turn_part(from, part, rows);
#pragma GCC unroll 4
            for (int i = 0; i < lane; ++i) Loose<Row>::write(to(part + i), rows[i]);
        }
    }

    // As many squares, one below the other, as give rows of a whole line: past the caches.
    static const int pieces = LINE / LB_REGISTER;
    template <class From, class To>
    LB_INLINE static void turn_past(const From &from, const To &to) {
#pragma GCC unroll 4
        for (int part = 0; part < width; part += lane) {
            Row rows[pieces][lane];
#pragma GCC unroll 4
            for (int piece = 0; piece < pieces; ++piece)
                turn_part([&](int i) { return from(piece * width + i); }, part, rows[piece]);
#pragma GCC unroll 4
            for (int i = 0; i < lane; ++i)
#pragma GCC unroll 4
                for (int piece = 0; piece < pieces; ++piece)
                    write_past(to(part + i) + piece * width, rows[piece][i]);
        }
    }

    // Rows `part` and following, a lane of them, of a turned square.
    template <class From>
    LB_INLINE static void turn_part(const From &from, int part, Row *turned) {
        Row rows[2][lane];
        int now = 0;
#pragma GCC unroll 4
        for (int i = 0; i < lane; ++i) rows[now][i] = read(from, i, part);
#pragma GCC unroll 2
        for (int round = 1; round < lane; round *= 2) {
#pragma GCC unroll 2
            for (int i = 0; i < lane; i += 2) {
                Row a = rows[now][i / 2], b = rows[now][i / 2 + lane / 2];
                rows[1 - now][i] = Deal<R>::low(a, b);
                rows[1 - now][i + 1] = Deal<R>::high(a, b);
            }
            now = 1 - now;
        }
#pragma GCC unroll 4
        for (int i = 0; i < lane; ++i) turned[i] = rows[now][i];
    }

    // Numbers `part` and following of the rows i, i + lane, ..., a lane of each.
    template <class From> LB_INLINE static Row read(const From &from, int i, int part) {
#if defined(__AVX512F__)
        __m512 row = _mm512_castps128_ps512(lane_at(from(i) + part));
        row = _mm512_insertf32x4(row, lane_at(from(i + lane) + part), 1);
        row = _mm512_insertf32x4(row, lane_at(from(i + 2 * lane) + part), 2);
        return (Row)_mm512_insertf32x4(row, lane_at(from(i + 3 * lane) + part), 3);
#elif defined(__AVX2__)
        __m256 row = _mm256_castps128_ps256(lane_at(from(i) + part));
        return (Row)_mm256_insertf128_ps(row, lane_at(from(i + lane) + part), 1);
#else
        return Loose<Row>::read(from(i) + part);
#endif
    }

#if defined(LB_X86)
    LB_INLINE static __m128 lane_at(const R *at) { return _mm_loadu_ps((const float *)at); }
#endif
};
