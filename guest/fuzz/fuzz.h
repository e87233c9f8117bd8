/* The guest's parsers, fed with what strangers could have written. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Reads one input; whatever it is, nothing may be written or read that is not there. */
typedef void fuzz_target(const unsigned char *bytes, size_t length);

fuzz_target fuzz_json, fuzz_http, fuzz_url, fuzz_known, fuzz_seed, fuzz_metal, fuzz_encode, fuzz_plan, fuzz_grpc,
    fuzz_memlog, fuzz_table, fuzz_content, fuzz_modules, fuzz_options, fuzz_root,
    fuzz_canary;

/* A text of its own with a final NUL, as the parsers get it; the caller frees it. */
char *fuzz_text(const unsigned char *bytes, size_t length);
/* One end of a pair of sockets, in which the bytes wait, and then the end. */
int fuzz_socket(const unsigned char *bytes, size_t length);
/* A file that is there for as long as the descriptor, emptied and `size` bytes long. */
int fuzz_disk(uint64_t size);
