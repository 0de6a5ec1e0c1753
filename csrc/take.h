/* Which of two values a max pool keeps. The first maximum wins, and the first NaN over every
 * number. */
#ifndef FD_TAKE_H
#define FD_TAKE_H

#include "units.h"

FD_INLINE void take(vf a, uint32_t index, vf *best, vf *at) {
    const vm wins = vm_and(vm_greater_or_nan(a, *best), vm_is_number(*best));
    *best = vf_select(wins, a, *best);
    *at = vf_select(wins, vf_from_bits(index), *at);
}

#endif
