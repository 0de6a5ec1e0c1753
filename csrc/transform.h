/* The transforms of Winograd's algorithm F(2, 3) along one axis.
 *
 * What    Four inputs of a tile to its four places, and what the products leave there to two
 *         outputs.
 * Numbers float32. An output depends on its three inputs alone, also in its rounding: the fourth
 *         input is part of none of the places that the output is made of.
 */
#ifndef FD_TRANSFORM_H
#define FD_TRANSFORM_H

#include "vec.h"

FD_INLINE void to_places(const vf *d, vf *o) {
    o[0] = vf_sub(d[0], d[2]);
    o[1] = vf_add(d[1], d[2]);
    o[2] = vf_sub(d[2], d[1]);
    o[3] = vf_sub(d[1], d[3]);
}

FD_INLINE void from_places(const vf *m, vf *o) {
    o[0] = vf_add(vf_add(m[0], m[1]), m[2]);
    o[1] = vf_sub(vf_sub(m[1], m[2]), m[3]);
}

#endif
