/* The leaf hashes of several blocks at once, each in its own lane of the processor's vectors.
 *
 * One BLAKE2b is a chain of steps, little of which can go on side by side: a core hashes about 1 GB/s. Blocks do not
 * depend on each other, so each step is taken for eight of them by one instruction (AVX-512) or by two (AVX2).
 * What a leaf hash covers says hashing.py. Source of BLAKE2b: RFC 7693, sections 2 and 3. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    LANES = 8,
    DIGEST = 32,       /* bytes of a hash */
    PIECE = 128,       /* bytes that one step takes in */
    HEAD = 9,          /* bytes before a block: its type, 0, and its size */
    TOGETHER = 8 * 1024 /* bytes from which on other threads may run meanwhile */
};

typedef uint64_t Words __attribute__((vector_size(8 * LANES))); /* a word of each lane */
typedef void TakeIn(Words h[8], const uint8_t *const at[LANES], const Words *taken, const Words *last);

typedef struct {
    Py_buffer block;
    uint8_t digest[DIGEST];
} Leaf;

typedef struct {
    Leaf *leaf; /* none: the lane is idle */
    uint64_t taken, whole; /* bytes of head and block that were taken in; that there are */
    uint8_t ragged[PIECE]; /* the first piece, with the head, or the last one, filled up with zeros */
} Lane;

static const uint64_t START[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
static const uint64_t PARAMETERS = 0x01010000 ^ DIGEST; /* neither key nor tree */

static const uint8_t ORDER[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
};

#define TURN(x, bits) ((x) >> (bits) | (x) << (64 - (bits)))
#define HALF(a, b, c, d, word, first, second)                                                                          \
    v[a] += v[b] + m[word], v[d] ^= v[a], v[d] = TURN(v[d], first), v[c] += v[d], v[b] ^= v[c],                        \
        v[b] = TURN(v[b], second)
#define MIX(a, b, c, d, i)                                                                                             \
    HALF(a, b, c, d, ORDER[round][2 * (i)], 32, 24), HALF(a, b, c, d, ORDER[round][2 * (i) + 1], 16, 63)

/* Take the piece from `at` of each lane into its `h` (RFC 7693, 3.2): up to its end it are `taken` bytes, and `last` is
 * all ones for the last piece of a lane, else 0. */
static inline __attribute__((always_inline)) void take_in(
    Words h[8], const uint8_t *const at[LANES], const Words *taken, const Words *last)
{
    Words m[16], v[16];
#pragma GCC unroll 16
    for (int word = 0; word < 16; word++)
#pragma GCC unroll 8
        for (int lane = 0; lane < LANES; lane++) {
            uint64_t value;
            memcpy(&value, at[lane] + 8 * word, sizeof value);
            m[word][lane] = value;
        }
#pragma GCC unroll 8
    for (int word = 0; word < 8; word++) {
        v[word] = h[word];
        v[word + 8] = (Words){0} + START[word];
    }
    v[12] ^= *taken;
    v[14] ^= *last;
#pragma GCC unroll 12
    for (int round = 0; round < 12; round++) {
        MIX(0, 4, 8, 12, 0), MIX(1, 5, 9, 13, 1), MIX(2, 6, 10, 14, 2), MIX(3, 7, 11, 15, 3);
        MIX(0, 5, 10, 15, 4), MIX(1, 6, 11, 12, 5), MIX(2, 7, 8, 13, 6), MIX(3, 4, 9, 14, 7);
    }
#pragma GCC unroll 8
    for (int word = 0; word < 8; word++)
        h[word] ^= v[word] ^ v[word + 8];
}

__attribute__((target("avx512f"))) static void take_in_avx512(
    Words h[8], const uint8_t *const at[LANES], const Words *taken, const Words *last)
{
    take_in(h, at, taken, last);
}

__attribute__((target("avx2"))) static void take_in_avx2(
    Words h[8], const uint8_t *const at[LANES], const Words *taken, const Words *last)
{
    take_in(h, at, taken, last);
}

static TakeIn *chosen; /* for this processor, set once when the module is loaded */

/* Give an idle lane the next leaf. */
static void begin(Lane *lane, Leaf *leaf, Words h[8], int number)
{
    lane->leaf = leaf;
    lane->taken = 0;
    lane->whole = HEAD + (uint64_t)leaf->block.len;
    for (int word = 0; word < 8; word++)
        h[word][number] = START[word] ^ (word ? 0 : PARAMETERS);
}

/* Return where the next piece of a lane lies: in its block, unless a head or zeros belong to it. */
static const uint8_t *next_piece(Lane *lane)
{
    const uint8_t *block = lane->leaf->block.buf;
    uint64_t size = (uint64_t)lane->leaf->block.len, rest = lane->whole - lane->taken;
    uint8_t *piece = lane->ragged;

    if (lane->taken && rest >= PIECE)
        return block + lane->taken - HEAD;
    memset(piece, 0, PIECE);
    if (lane->taken) {
        memcpy(piece, block + lane->taken - HEAD, rest);
        return piece;
    }
    for (int byte = 0; byte < 8; byte++)
        piece[1 + byte] = (uint8_t)(size >> (56 - 8 * byte));
    if (size)
        memcpy(piece + HEAD, block, size < PIECE - HEAD ? size : PIECE - HEAD);
    return piece;
}

/* Set the digests of the leaves from `leaf` up to `end`. */
static void hash_leaves(Leaf *leaf, Leaf *end)
{
    static const uint8_t nothing[PIECE];
    Lane lanes[LANES] = {0};
    Words h[8] = {0}, taken, last;
    const uint8_t *at[LANES];

    for (bool busy = true; busy;) {
        busy = false;
        for (int number = 0; number < LANES; number++) {
            Lane *lane = &lanes[number];
            if (lane->leaf && lane->taken == lane->whole) {
                uint64_t digest[DIGEST / 8];
                for (int word = 0; word < DIGEST / 8; word++)
                    digest[word] = h[word][number];
                memcpy(lane->leaf->digest, digest, DIGEST);
                lane->leaf = NULL;
            }
            if (!lane->leaf && leaf < end)
                begin(lane, leaf++, h, number);
            if (lane->leaf) {
                busy = true;
                at[number] = next_piece(lane);
                lane->taken = lane->whole - lane->taken > PIECE ? lane->taken + PIECE : lane->whole;
                taken[number] = lane->taken;
                last[number] = lane->taken == lane->whole ? UINT64_MAX : 0;
            } else {
                at[number] = nothing;
                taken[number] = last[number] = 0;
            }
        }
        if (busy)
            chosen(h, at, &taken, &last);
    }
}

/* Read the blocks of a tuple or list into `leaves`; return how many could be read, all of them if no error is set. */
static Py_ssize_t open_blocks(PyObject *blocks, Leaf *leaves, Py_ssize_t count, size_t *bytes)
{
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *block = PySequence_GetItem(blocks, index);
        int failed = !block || PyObject_GetBuffer(block, &leaves[index].block, PyBUF_SIMPLE);
        Py_XDECREF(block); /* the open buffer holds on to it */
        if (failed)
            return index;
        *bytes += (size_t)leaves[index].block.len;
    }
    return count;
}

static PyObject *leaf_hashes(PyObject *module, PyObject *blocks)
{
    Py_ssize_t count = PySequence_Size(blocks);
    if (count < 0)
        return NULL;
    Leaf *leaves = PyMem_Calloc(count ? (size_t)count : 1, sizeof(Leaf));
    if (!leaves)
        return PyErr_NoMemory();
    size_t bytes = 0;
    Py_ssize_t opened = open_blocks(blocks, leaves, count, &bytes);
    PyObject *digests = NULL;
    if (opened == count) {
        if (bytes < TOGETHER) {
            hash_leaves(leaves, leaves + count);
        } else {
            Py_BEGIN_ALLOW_THREADS
            hash_leaves(leaves, leaves + count);
            Py_END_ALLOW_THREADS
        }
        digests = PyList_New(count);
    }
    for (Py_ssize_t index = 0; index < opened; index++) {
        if (digests) {
            PyObject *digest = PyBytes_FromStringAndSize((const char *)leaves[index].digest, DIGEST);
            if (!digest || PyList_SetItem(digests, index, digest))
                Py_CLEAR(digests);
        }
        PyBuffer_Release(&leaves[index].block);
    }
    PyMem_Free(leaves);
    return digests;
}

static PyMethodDef methods[] = {
    {"leaf_hashes", leaf_hashes, METH_O, "Return the leaf hash of each block of a sequence, in order."},
    {NULL, NULL, 0, NULL},
};

static int choose(PyObject *module)
{
    long worth; /* how many blocks of one size take less time so than one after the other */

    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        chosen = take_in_avx512;
        worth = 3;
    } else if (__builtin_cpu_supports("avx2")) {
        chosen = take_in_avx2;
        worth = 6;
    } else {
        PyErr_SetString(PyExc_ImportError, "this processor has no vectors of 256 bits");
        return -1;
    }
    return PyModule_AddIntConstant(module, "WORTH", worth);
}

#else

static PyMethodDef methods[] = {{NULL, NULL, 0, NULL}};

static int choose(PyObject *module)
{
    PyErr_SetString(PyExc_ImportError, "written for x86-64 processors");
    return -1;
}

#endif

static PyModuleDef_Slot slots[] = {{Py_mod_exec, choose}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "ddrive.feed._lanes", "Leaf hashes of several blocks at once.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__lanes(void)
{
    return PyModuleDef_Init(&definition);
}
