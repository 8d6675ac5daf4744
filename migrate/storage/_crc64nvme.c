/* CRC-64/NVME by carry-less multiplication of 128 bits ("Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction", Intel, 2009). A processor without it gets an ImportError, and awscrt is used.
 *
 * The CRC is reflected: bit 63 of a word is the coefficient of x^0, and the first byte of a message has the highest
 * powers. So the carry-less product of two words, read as 128 bits, is their product times x.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if !defined(__x86_64__)
#error "written for x86-64 only; elsewhere awscrt computes this checksum"
#endif
#include <immintrin.h>

#define POLYNOMIAL 0x9A6C9329AC4BC9B5u /* of the NVM Command Set Specification, reflected, without x^64 */
#define ONE (1ull << 63)               /* the polynomial x^0 */
enum { BLOCK = 16, LANES = 8, STRIDE = BLOCK * LANES };
enum { WIDE_BLOCK = 64, WIDE_LANES = 4, WIDE_STRIDE = WIDE_BLOCK * WIDE_LANES };
enum { HOLDS_LOCK_UP_TO = 128 << 10 /* bytes: 5 to 20 microseconds */ };

static uint64_t bytes_table[256];
static uint64_t over_block[2], over_stride[2], over_wide_stride[2]; /* powers of x for both halves of a block */
static bool is_wide;

static uint64_t times_x(uint64_t factor) { return factor >> 1 ^ (factor & 1 ? POLYNOMIAL : 0); }

/* a * b modulo the polynomial */
static uint64_t product(uint64_t a, uint64_t b) {
    uint64_t sum = 0;
    for (; a; a <<= 1, b = times_x(b))
        if (a & ONE) sum ^= b;
    return sum;
}

/* x^exponent modulo the polynomial */
static uint64_t power_of_x(uint64_t exponent) {
    uint64_t power = ONE, square = times_x(ONE);
    for (; exponent; exponent >>= 1, square = product(square, square))
        if (exponent & 1) power = product(power, square);
    return power;
}

static uint64_t add_bytes(uint64_t crc, const unsigned char *data, size_t size) {
    for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ bytes_table[(crc ^ data[i]) & 0xff];
    return crc;
}

#define TARGET __attribute__((target("pclmul,sse2")))

TARGET static inline __m128i load(const void *data) { return _mm_loadu_si128(data); }

/* a block times a power of x, plus the block that lies so far behind it */
TARGET static inline __m128i fold(__m128i block, __m128i power, __m128i next) {
    __m128i first = _mm_clmulepi64_si128(block, power, 0x00), second = _mm_clmulepi64_si128(block, power, 0x11);
    return _mm_xor_si128(_mm_xor_si128(first, second), next);
}

/* crc: of what lies before, not inverted; data: at least STRIDE bytes */
TARGET static uint64_t add_blocks(uint64_t crc, const unsigned char *data, size_t size) {
    __m128i lanes[LANES], stride = load(over_stride), block = load(over_block);
    for (int i = 0; i < LANES; i++) lanes[i] = load(data + i * BLOCK);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi64_si128((long long)crc));
    for (data += STRIDE, size -= STRIDE; size >= STRIDE; data += STRIDE, size -= STRIDE)
        for (int i = 0; i < LANES; i++) lanes[i] = fold(lanes[i], stride, load(data + i * BLOCK));
    __m128i sum = lanes[0];
    for (int i = 1; i < LANES; i++) sum = fold(sum, block, lanes[i]);
    for (; size >= BLOCK; data += BLOCK, size -= BLOCK) sum = fold(sum, block, load(data));
    unsigned char rest[BLOCK];
    _mm_storeu_si128((void *)rest, sum);
    return add_bytes(add_bytes(0, rest, BLOCK), data, size);
}

#define WIDE_TARGET __attribute__((target("avx512f,vpclmulqdq,pclmul")))

/* Put into blocks what the whole strides of data, one at least, come to; return how many bytes these are. It is the same
 * folding, of four blocks by one instruction: three times as fast, where data lie in the cache. */
WIDE_TARGET static size_t fold_wide(uint64_t crc, const unsigned char *data, size_t size, unsigned char *blocks) {
    __m512i lanes[WIDE_LANES], power = _mm512_broadcast_i32x4(load(over_wide_stride));
    for (int i = 0; i < WIDE_LANES; i++) lanes[i] = _mm512_loadu_si512(data + i * WIDE_BLOCK);
    lanes[0] = _mm512_xor_si512(lanes[0], _mm512_zextsi128_si512(_mm_cvtsi64_si128((long long)crc)));
    size_t done = WIDE_STRIDE;
    for (; size - done >= WIDE_STRIDE; done += WIDE_STRIDE)
        for (int i = 0; i < WIDE_LANES; i++) {
            __m512i first = _mm512_clmulepi64_epi128(lanes[i], power, 0x00);
            __m512i second = _mm512_clmulepi64_epi128(lanes[i], power, 0x11);
            __m512i next = _mm512_loadu_si512(data + done + i * WIDE_BLOCK);
            lanes[i] = _mm512_xor_si512(_mm512_xor_si512(first, second), next);
        }
    for (int i = 0; i < WIDE_LANES; i++) _mm512_storeu_si512(blocks + i * WIDE_BLOCK, lanes[i]);
    return done;
}

static uint64_t crc_of(uint64_t previous, const unsigned char *data, size_t size) {
    uint64_t crc = ~previous;
    if (is_wide && size >= 2 * WIDE_STRIDE) {
        unsigned char blocks[WIDE_STRIDE];
        size_t done = fold_wide(crc, data, size, blocks);
        crc = add_blocks(0, blocks, WIDE_STRIDE);
        data += done, size -= done;
    }
    return ~(size < STRIDE ? add_bytes(crc, data, size) : add_blocks(crc, data, size));
}

static PyObject *crc64nvme(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer buffer;
    unsigned long long crc = 0;
    if (!PyArg_ParseTuple(arguments, "y*|K", &buffer, &crc)) return NULL;
    size_t size = (size_t)buffer.len;
    if (size <= HOLDS_LOCK_UP_TO) {
        crc = crc_of(crc, buffer.buf, size);
    } else {
        Py_BEGIN_ALLOW_THREADS
        crc = crc_of(crc, buffer.buf, size);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&buffer);
    return PyLong_FromUnsignedLongLong(crc);
}

static PyObject *combine_crc64nvme(PyObject *Py_UNUSED(module), PyObject *arguments) {
    unsigned long long first, second, size; /* size: bytes that the second is the CRC of */
    if (!PyArg_ParseTuple(arguments, "KKK", &first, &second, &size)) return NULL;
    return PyLong_FromUnsignedLongLong(product(first, power_of_x(8 * size)) ^ second);
}

static PyMethodDef functions[] = {
    {"crc64nvme", crc64nvme, METH_VARARGS, NULL},
    {"combine_crc64nvme", combine_crc64nvme, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "migrate.storage._crc64nvme",
    .m_size = -1,
    .m_methods = functions,
};

static void set_power(uint64_t *powers, uint64_t bits) { /* one less, because a carry-less product has one more */
    powers[0] = power_of_x(bits + 64 - 1);
    powers[1] = power_of_x(bits - 1);
}

PyMODINIT_FUNC PyInit__crc64nvme(void) {
    if (!__builtin_cpu_supports("pclmul")) {
        PyErr_SetString(PyExc_ImportError, "this processor has no carry-less multiplication");
        return NULL;
    }
    for (unsigned i = 0; i < 256; i++) {
        uint64_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = times_x(crc);
        bytes_table[i] = crc;
    }
    set_power(over_block, BLOCK * 8);
    set_power(over_stride, STRIDE * 8);
    set_power(over_wide_stride, WIDE_STRIDE * 8);
    is_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq");
    return PyModule_Create(&definition);
}
