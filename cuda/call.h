// What a caller hands to a kernel, on the CPU and on the GPU alike. lava_bridge/kernels/call.py
// holds the same structure: change both together.
//
// A sequence holds the states of all neurons over time and is dense in memory, as
// [outer, steps, inner]: TNX is [1, T, N*X], NXT is [N*X, T, 1], and every permutation of a dense
// tensor is some [outer, T, inner]. A parameter or a result is one number for each neuron, in the
// order of [outer, inner], or one number for all. Marks are bits, one for each neuron and step: those
// of 32 steps share a word, and the words are [outer, (steps + 31) / 32, inner].
#pragma once

#define LB_SEQUENCES 6
#define LB_PARAMETERS 8
#define LB_RESULTS 5
#define LB_NUMBERS 12

struct Call {
    const void *in[LB_SEQUENCES];
    void *out[LB_SEQUENCES];               // null: not wanted
    const void *parameter[LB_PARAMETERS];  // in the dtype that is computed in
    void *result[LB_RESULTS];              // likewise; null: not wanted
    int *marks;                            // null: none
    double number[LB_NUMBERS];
    long long outer, steps, inner;
    int shared[LB_PARAMETERS];   // 1: one number for all neurons
    int in_type[LB_SEQUENCES];   // a StorageType each; the CPU takes the computed type only
    int out_type[LB_SEQUENCES];
    int threads;                 // CPU: how many at most
    int instructions;            // CPU: 0 the best there is, else 1 + an index of the table
    int past_caches;             // CPU: a PastCaches
    int own_cache;               // CPU: bytes of the cache that a core has for itself; 0: what it has
};

enum StorageType { STORED_FLOAT = 0, STORED_DOUBLE = 1, STORED_HALF = 2, STORED_BFLOAT = 3 };

// When outputs are written to memory without a copy in the caches, which would first read what is there.
enum PastCaches { PAST_IF_LARGE = 0, PAST_NEVER = 1, PAST_ALWAYS = 2 };
