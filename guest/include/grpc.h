/* A small gRPC client: unary calls over one connection to a Unix socket (HTTP/2 of RFC 9113, gRPC over HTTP/2), and
 * the few kinds of protobuf fields that containerd's requests are made of. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRPC_MESSAGE_MAX (1 << 20) /* bytes of a request or a response */

/* A protobuf message in its wire format. */
struct message {
    unsigned char *bytes;
    size_t length, room;
};

void message_free(struct message *message);
#define scoped_message __attribute__((cleanup(message_free))) struct message
void put_bytes(struct message *message, unsigned field, const void *bytes, size_t length);
void put_text(struct message *message, unsigned field, const char *text); /* nothing for "", as proto3 has it */
void put_message(struct message *message, unsigned field, const struct message *inner);
/* The last varint with that number, or `otherwise`. */
uint64_t get_number(const struct message *message, unsigned field, uint64_t otherwise);

struct grpc {
    int fd;
    uint32_t stream;           /* of the next call */
    int64_t window, initial;   /* bytes that the peer takes: on the connection, on a new stream */
    uint32_t frame;            /* bytes that the peer takes in one frame */
};

/* 0, or -1 with errno. Every wait for the peer ends after `seconds`. */
int grpc_open(struct grpc *grpc, const char *path, int seconds);
void grpc_close(struct grpc *grpc);
#define scoped_grpc __attribute__((cleanup(grpc_close))) struct grpc
/* Calls METHOD ("/package.Service/Method"). `response` may be NULL. 0; 1: the call failed there; -1: the connection did. */
int grpc_call(struct grpc *grpc, const char *method, const char *namespace, const struct message *request,
              struct message *response);
