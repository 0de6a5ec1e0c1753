/* Memory for the results of a pass. When it is given back, some of it is kept for the next pass. */
#ifndef FD_MEMORY_H
#define FD_MEMORY_H

#include <stddef.h>

/* At least *size bytes, which begin on a cache line; *size becomes their number, which
 * fd_memory_give needs. NULL: there is no memory. */
void *fd_memory_take(size_t *size);
void fd_memory_give(void *memory, size_t size);

#endif
