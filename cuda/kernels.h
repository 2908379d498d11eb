// Every kernel: its name in a call and its program. No guard, as lanes.h.
#include "lanes.h"

#include "fixed_point.h"

#include "cuba.h"
#include "leaky_integrator.h"

#define LB_KERNELS(KERNEL)                                          \
    KERNEL(leaky_integrator, LeakyIntegrator)                       \
    KERNEL(leaky_integrator_backward, LeakyIntegratorBackward)      \
    KERNEL(cuba, Cuba)                                              \
    KERNEL(cuba_slayer_backward, CubaSlayerBackward)                \
    KERNEL(cuba_reset_backward, CubaResetBackward)
