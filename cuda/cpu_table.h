// How cpu_module.cpp finds the kernels of an instruction set.
#pragma once

#include "call.h"

// Runs one of `parts` shares of a call.
typedef void (*CpuRun)(const Call &call, long long part, long long parts);

struct CpuKernel {
    const char *name;
    CpuRun run_float, run_double;
    bool (*is_usual)(const Call &call);  // whether a program for usual calls runs it in floats
};

namespace baseline {
extern const CpuKernel table[];
}
#ifdef LB_X86
namespace avx2 {
extern const CpuKernel table[];
}
namespace avx512 {
extern const CpuKernel table[];
}
#endif
