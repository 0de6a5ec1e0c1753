/* Copies whole tensors from one layout to another.
 *
 * What    From planes to channels, and from lanes to planes.
 * Layout  See fastdeconv.h.
 * Mix     On AVX-512, per 16 x 16 values: 16 loads, 64 shuffles, 16 stores.
 * Numbers No arithmetic.
 */
#include "layout.h"
#include "units.h"

void FD_NAME(fd_planes_to_channels)(const float *planes, int channels, int h, int w, float *out,
                                    ptrdiff_t out_row, ptrdiff_t out_col, int row0, int row1) {
    for (int y = row0; y < row1; y++)
        fd_transpose(planes + (size_t)y * w, (ptrdiff_t)h * w, out + y * out_row, out_col,
                     NULL, channels, w);
}

void FD_NAME(fd_lanes_to_planes)(const float *lanes, ptrdiff_t row, int h, int w, int channels,
                                 int kp, int features, float *planes, int row0, int row1) {
    const ptrdiff_t pixel = (ptrdiff_t)channels * kp, plane = (ptrdiff_t)h * w;
    for (int y = row0; y < row1; y++)
        for (int c = 0; c < channels; c++)
            fd_transpose(lanes + y * row + (size_t)c * kp, pixel,
                         planes + c * plane + (size_t)y * w, channels * plane, NULL, w,
                         features);
}
