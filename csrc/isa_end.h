/* Takes back what isa_impl.h set for one float type. */
#undef FR
#undef REAL
#undef REAL_BITS
#undef INT
#undef VL
#undef V_LOAD_PART
#undef V_STORE_PART
#undef V_MIN
#undef V_MAX
#undef LOW
#undef HIGH
#undef OVER
#undef ZIP_LOW
#undef ZIP_HIGH
#undef vec
#undef ivec
#undef MAX_ROWS
