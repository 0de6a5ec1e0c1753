/* Sorts the channels of every cell by the place that their switches name (see gather.h).
 *
 * What    By counting: how many channels each place has, then each channel to its place. Where a
 *         vector of AVX-512 compares 64 switches at once, place by place instead, and no branch
 *         depends on a switch.
 * Mix     on AVX-512, per place of a cell and 64 channels: a comparison, 4 compresses, 4 stores.
 * Numbers none: channels are sorted. What gates leave over of a cell is 0: lists are copied some
 *         entries at a time, so that it is read, though not used.
 */
#include <string.h>

#include "units.h"

static void sort_by_counting(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                             const uint8_t *gate, int channels, int places, int32_t *order,
                             int32_t *first, int cell0, int cell1) {
    for (int cell = cell0; cell < cell1; cell++) {
        const size_t row = (size_t)cell * channels;
        int32_t *to = order + row, *count = first + (size_t)cell * (places + 1);
        memset(count, 0, sizeof *count * (places + 1));
        for (int pass = 0; pass < 2; pass++) {
            for (int c = 0; c < channels; c++) {
                if (gate && !gate[row + c]) continue;
                const uint32_t place =
                    switches ? fd_switch(switches, switch_bytes, cell * switch_cell + c) : 0;
                if (pass)
                    to[count[place]++] = c;
                else
                    count[place + 1]++;
            }
            /* After the first pass starts of the places, after the second their ends. */
            if (!pass)
                for (int p = 0; p < places; p++) count[p + 1] += count[p];
        }
        memmove(count + 1, count, sizeof *count * places);
        count[0] = 0;
        memset(to + count[places], 0, sizeof *to * (channels - count[places]));
    }
}

#if VW == 16
/* Places from which on comparing all of them takes longer than counting. */
#define MOST_COMPARED 16

/* Those of channels c..c+63 whose switch is `place` and whose gate is open; bits of `there`. */
FD_INLINE uint64_t channels_at(const uint8_t *switches, const uint8_t *gate, int c, int place,
                               uint64_t there) {
    if (gate) {
        const __m512i open = _mm512_maskz_loadu_epi8(there, gate + c);
        there = _mm512_test_epi8_mask(open, open);
    }
    if (!switches) return there;
    const __m512i own = _mm512_maskz_loadu_epi8(there, switches + c);
    return _mm512_mask_cmpeq_epi8_mask(there, own, _mm512_set1_epi8((char)place));
}

/* One cell: its channels at place 0, then at place 1, and so on. */
static void sort_by_comparing(const uint8_t *switches, const uint8_t *gate, int channels,
                              int places, int32_t *order, int32_t *first) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int count = 0;
    first[0] = 0;
    for (int place = 0; place < places; place++) {
        for (int c = 0; c < channels; c += 64) {
            const int n = channels - c < 64 ? channels - c : 64;
            uint64_t some = channels_at(switches, gate, c, place, ~UINT64_C(0) >> (64 - n));
            for (int i = c; i < c + n; i += 16, some >>= 16) {
                const __mmask16 here = (__mmask16)some;
                const int found = __builtin_popcount(here);
                const __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(i));
                /* No more than there are: behind them is what another thread sorts. */
                _mm512_mask_storeu_epi32(order + count, (__mmask16)((1u << found) - 1),
                                         _mm512_maskz_compress_epi32(here, numbers));
                count += found;
            }
        }
        first[place + 1] = count;
    }
    memset(order + count, 0, sizeof *order * (channels - count));
}
#endif

void FD_NAME(fd_sort_cells)(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                            const uint8_t *gate, int channels, int places, int32_t *order,
                            int32_t *first, int cell0, int cell1) {
#if VW == 16
    if (switch_bytes == 1 && places <= MOST_COMPARED) {
        const uint8_t *own = switches;
        for (ptrdiff_t cell = cell0; cell < cell1; cell++)
            sort_by_comparing(own ? own + cell * switch_cell : NULL,
                              gate ? gate + cell * channels : NULL, channels, places,
                              order + cell * channels, first + cell * (places + 1));
        return;
    }
#endif
    sort_by_counting(switches, switch_bytes, switch_cell, gate, channels, places, order, first,
                     cell0, cell1);
}
