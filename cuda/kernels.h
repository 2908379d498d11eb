// Every kernel: its name in a call and its program. No guard, as lanes.h.
#include "lanes.h"

#include "fixed_point.h"

#include "spike.h"

#include "adaptation.h"
#include "cuba.h"
#include "leaky_integrator.h"
#include "resonator.h"

#define LB_KERNELS(KERNEL)                                          \
    KERNEL(leaky_integrator, LeakyIntegrator)                       \
    KERNEL(leaky_integrator_backward, LeakyIntegratorBackward)      \
    KERNEL(cuba, Cuba)                                              \
    KERNEL(cuba_slayer_backward, CubaSlayerBackward)                \
    KERNEL(cuba_reset_backward, CubaResetBackward)                  \
    KERNEL(spike, Spike)                                            \
    KERNEL(spike_backward, SpikeBackward)                           \
    KERNEL(phase_spike, PhaseSpike)                                 \
    KERNEL(phase_spike_backward, PhaseSpikeBackward)                \
    KERNEL(adaptive_threshold, AdaptiveThreshold)                   \
    KERNEL(adaptive_phase_threshold, AdaptivePhaseThreshold)        \
    KERNEL(alif, Alif)                                              \
    KERNEL(alif_backward, AlifBackward)                             \
    KERNEL(rf, ResonateAndFireAtPhaseZero)                          \
    KERNEL(rf_iz, ResonateAndFireIzhikevich)                        \
    KERNEL(adrf, AdaptiveAtPhaseZero)                               \
    KERNEL(adrf_iz, AdaptiveIzhikevich)                             \
    KERNEL(phase_zero_backward, PhaseZeroBackward)                  \
    KERNEL(izhikevich_backward, IzhikevichBackward)                 \
    KERNEL(resonator_backward, ResonatorBackward)
