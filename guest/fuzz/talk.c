/* What containerd and memlogd answer. */
#include "../src/grpc.c"
#include "fuzz.h"
#include "memlog.h"

void fuzz_grpc(const unsigned char *bytes, size_t length)
{
    struct grpc grpc = {.fd = fuzz_socket(bytes, length), .stream = 1, .window = WINDOW, .initial = WINDOW, .frame = FRAME_MAX};
    scoped_message request = {0}, response = {0};
    put_text(&request, 1, "a container");
    if (grpc_call(&grpc, "/a/b", "namespace", &request, &response) == 0)
        get_number(&response, 2, 7);
    grpc_close(&grpc);
    struct message message = {.bytes = (unsigned char *)bytes, .length = length};
    get_number(&message, 1, 0);
}

void fuzz_memlog(const unsigned char *bytes, size_t length)
{
    scoped_memlog log = {.fd = fuzz_socket(bytes, length)};
    while (memlog_next(&log) > 0)
        if (strlen(log.time) >= sizeof(log.time) || strlen(log.source) >= sizeof(log.source) ||
            strlen(log.message) > log.room)
            abort();
}
