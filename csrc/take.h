/* Which of two values a max pool keeps.
 *
 * What    The larger value and its place, lane by lane.
 * Numbers The first maximum is kept. A NaN counts as larger than any number; the first one is kept.
 */
#ifndef FD_TAKE_H
#define FD_TAKE_H

#include "units.h"

/* Takes `a`, which is at place `index`, into the maximum so far: *best, which is at place *at. */
FD_INLINE void take(vf a, uint32_t index, vf *best, vf *at) {
    const vm wins = vm_and(vm_greater_or_nan(a, *best), vm_is_number(*best));
    *best = vf_select(wins, a, *best);
    *at = vf_select(wins, vf_from_bits(index), *at);
}

#endif
