/* sigmoid, tanh and expm1 of a vector.
 *
 * All stand on expm1: x = n ln2 + r with |r| <= ln2/2 (Cody and Waite: n*ln2 is taken off in two pieces), p =
 * exp(r) - 1 from a polynomial whose leading term is r itself, so that p keeps its relative accuracy near 0. Then
 *     sigmoid(x) = 1 / (1 + exp(-x))  with  exp(x) = 2^n + 2^n p
 *     tanh(x)    = m / (m + 2)  with  m = exp(2x) - 1 = 2^n p + (2^n - 1)
 * The tanh needs no second polynomial and no branch for small x: there n = 0 and m = p. Within 2.5 ulp of the exact
 * value for every x (tests/test_activations.py). Coefficients: csrc/fit_expm1.py.
 *
 * A: the arguments are clamped to where the result has stopped changing, so 2^n never leaves the normal numbers.
 * B: adding ROUND leaves round(x log2(e)) plus the exponent's bias in the low bits of the float, from where a shift puts
 *    it into an exponent.
 * C: of the absolute value, for there an error of m shrinks in the quotient; below 0 it would grow up to twofold.
 * D: ln2 in one piece is exact where n = 0, which is where m is small; elsewhere its error is lost in m + 2.
 *
 * 16 and 18 operations; two ports of 64 bytes do them in 3.4 ns at 3.7 GHz (Xeon with AMX), division included.
 */
#if REAL_BITS == 32
#define ROUND 12583039.0f /* 1.5 * 2^23 + 127 */
#define MANTISSA 23
#define SIGN_BIT 0x80000000u
#define LOG2_E 1.44269504f
#define LN2 0.693147182f
#define LN2_HIGH 0.693359375f /* 9 bits, so that n * LN2_HIGH is exact */
#define LN2_LOW -2.12194440e-4f
#define EXP_MIN -87.3f
#define EXP_MAX 88.0f
#define TANH_MAX 10.0f
#else
#define ROUND 6755399441056767.0 /* 1.5 * 2^52 + 1023 */
#define MANTISSA 52
#define SIGN_BIT 0x8000000000000000u
#define LOG2_E 1.4426950408889634074
#define LN2 0.69314718055994530942
#define LN2_HIGH 0.693147180369123816490 /* 33 bits */
#define LN2_LOW 1.90821492927058770002e-10
#define EXP_MIN -708.0
#define EXP_MAX 709.0
#define TANH_MAX 20.0
#endif

/* q of exp(r) = 1 + r + r^2 q. */
static FR_INLINE vec FR(tail)(vec r) {
#if REAL_BITS == 32
    vec q = FR(splat)(0.00138580997f);
    q = q * r + 0.008366740131f;
    q = q * r + 0.04166760014f;
    q = q * r + 0.1666654149f;
    q = q * r + 0.4999999673f;
#else
    vec q = FR(splat)(2.505762574331516055e-8);
    q = q * r + 2.762638594517712174e-7;
    q = q * r + 2.755739535310807336e-6;
    q = q * r + 0.000024801504311074462;
    q = q * r + 0.0001984126973279335342;
    q = q * r + 0.001388888893248340855;
    q = q * r + 0.008333333333383056972;
    q = q * r + 0.04166666666657328523;
    q = q * r + 0.1666666666666659974;
    q = q * r + 0.5000000000000005593;
#endif
    return q;
}

static FR_INLINE vec FR(vsigmoid)(vec x) {
    x = FR(vmax)(FR(vmin)(x, -(REAL)EXP_MIN), -(REAL)EXP_MAX); /* A */
    vec shifted = ROUND - x * LOG2_E; /* B */
    vec n = shifted - ROUND;
    vec s = x + n * LN2_HIGH; /* -r, for exp(-x): a minus in front of x would be an instruction of its own */
    s = s + n * LN2_LOW;
    vec q = FR(tail)(-s);
    vec power = FR(from_bits)(FR(bits)(shifted) << MANTISSA);
    vec p = (s * s) * q - s;
    return (REAL)1 / ((power + (REAL)1) + power * p);
}

static FR_INLINE vec FR(vtanh)(vec x) {
    ivec sign = FR(bits)(x) & SIGN_BIT; /* C */
    x = FR(vmin)(FR(from_bits)(FR(bits)(x) ^ sign), TANH_MAX); /* A */
    vec shifted = x * (2 * LOG2_E) + ROUND;
    vec n = shifted - ROUND;
    vec r = (x + x) - n * LN2; /* D */
    vec power = FR(from_bits)(FR(bits)(shifted) << MANTISSA);
    vec p = (r * r) * FR(tail)(r) + r;
    vec m = power * p + (power - (REAL)1);
    return FR(from_bits)(FR(bits)(m / (m + (REAL)2)) ^ sign);
}

/* exp(x) - 1; within 2 ulp down to where it is -1. */
static FR_INLINE vec FR(vexpm1)(vec x) {
    x = FR(vmax)(FR(vmin)(x, (REAL)EXP_MAX), (REAL)EXP_MIN); /* A */
    vec shifted = x * LOG2_E + ROUND;
    vec n = shifted - ROUND;
    vec r = x - n * LN2_HIGH;
    r = r - n * LN2_LOW;
    vec power = FR(from_bits)(FR(bits)(shifted) << MANTISSA);
    vec p = (r * r) * FR(tail)(r) + r;
    return power * p + (power - (REAL)1);
}

/* exp(x) for x <= 0, down to the smallest normal number. */
static FR_INLINE vec FR(vexp)(vec x) {
    x = FR(vmax)(x, (REAL)EXP_MIN); /* A */
    vec shifted = x * LOG2_E + ROUND;
    vec n = shifted - ROUND;
    vec r = x - n * LN2_HIGH;
    r = r - n * LN2_LOW;
    vec power = FR(from_bits)(FR(bits)(shifted) << MANTISSA);
    return power * ((r * r) * FR(tail)(r) + r) + power;
}

static void FR(activate)(REAL *y, const REAL *x, ptrdiff_t n, int which) {
    for (ptrdiff_t j = 0; j < n; j += VL) {
        ptrdiff_t lanes = n - j < VL ? n - j : VL;
        vec v = FR(load)(x + j, lanes);
        v = which == 0 ? FR(vsigmoid)(v) : which == 1 ? FR(vtanh)(v) : FR(vexpm1)(v);
        FR(store)(y + j, v, lanes);
    }
}

#undef ROUND
#undef MANTISSA
#undef SIGN_BIT
#undef LOG2_E
#undef LN2
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_MIN
#undef EXP_MAX
#undef TANH_MAX
