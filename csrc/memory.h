/* Memory for the results of a pass, kept for the next pass when nobody uses it any more. */
#ifndef FD_MEMORY_H
#define FD_MEMORY_H

#include <stddef.h>

/* At least *size bytes from a cache line on; *size becomes how many. NULL: there is none. */
void *fd_memory_take(size_t *size);
void fd_memory_give(void *memory, size_t size);

#endif
