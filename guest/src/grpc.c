/* gRPC over HTTP/2 (RFC 9113), as much of it as containerd is asked with.
 *
 * Header blocks are written as literals without an index or Huffman coding, and the peer's are not looked into: a unary
 * call that succeeds brings a message, one that fails brings only trailers. Why it failed is for ctr to tell. */
#define _GNU_SOURCE
#include "grpc.h"
#include "bytes.h"
#include "util.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
#define END_STREAM 0x1
#define ACK 0x1
#define END_HEADERS 0x4
#define PADDED 0x8
#define FRAME_MAX 16384 /* what we take: the least that a peer may send without asking */
#define WINDOW 65535
#define SETTINGS_INITIAL_WINDOW_SIZE 4
#define SETTINGS_MAX_FRAME_SIZE 5

struct frame {
    uint8_t kind, flags;
    uint32_t stream, length;
    unsigned char *bytes;
};

/* --- protobuf */

static void append(struct message *message, const void *bytes, size_t length)
{
    if (length > message->room - message->length) {
        message->room = (message->length + length) * 2;
        unsigned char *larger = must_alloc(message->room);
        if (message->length)
            memcpy(larger, message->bytes, message->length);
        free(message->bytes);
        message->bytes = larger;
    }
    if (length)
        memcpy(message->bytes + message->length, bytes, length);
    message->length += length;
}

static void put_varint(struct message *message, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        append(message, &(unsigned char){(unsigned char)(value | 0x80)}, 1);
    append(message, &(unsigned char){(unsigned char)value}, 1);
}

void put_bytes(struct message *message, unsigned field, const void *bytes, size_t length)
{
    put_varint(message, field << 3 | 2);
    put_varint(message, length);
    append(message, bytes, length);
}

void put_text(struct message *message, unsigned field, const char *text)
{
    if (*text)
        put_bytes(message, field, text, strlen(text));
}

void put_message(struct message *message, unsigned field, const struct message *inner)
{
    put_bytes(message, field, inner->bytes, inner->length);
}

void message_free(struct message *message)
{
    free(message->bytes);
    *message = (struct message){0};
}

static bool take_varint(const unsigned char **at, const unsigned char *end, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        unsigned char byte = *(*at)++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

uint64_t get_number(const struct message *message, unsigned field, uint64_t otherwise)
{
    if (!message->length)
        return otherwise; /* there are no bytes to point at, or behind */
    const unsigned char *at = message->bytes, *end = at + message->length;
    uint64_t key, value;
    while (at < end && take_varint(&at, end, &key)) {
        uint64_t skip = 0;
        switch (key & 7) {
        case 0:
            if (!take_varint(&at, end, &value))
                return otherwise;
            if (key >> 3 == field)
                otherwise = value;
            break;
        case 1:
            skip = 8;
            break;
        case 2:
            if (!take_varint(&at, end, &skip))
                return otherwise;
            break;
        case 5:
            skip = 4;
            break;
        default:
            return otherwise;
        }
        if (skip > (uint64_t)(end - at))
            return otherwise;
        at += skip;
    }
    return otherwise;
}

/* --- frames */

static int send_all(struct grpc *grpc, const void *bytes, size_t length)
{
    for (const char *at = bytes; length;) {
        ssize_t sent = send(grpc->fd, at, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return -1;
        at += sent;
        length -= (size_t)sent;
    }
    return 0;
}

static int send_frame(struct grpc *grpc, uint8_t kind, uint8_t flags, uint32_t stream, const void *bytes, size_t length)
{
    unsigned char head[9] = {(unsigned char)(length >> 16), (unsigned char)(length >> 8), (unsigned char)length, kind,
                             flags, (unsigned char)(stream >> 24), (unsigned char)(stream >> 16),
                             (unsigned char)(stream >> 8), (unsigned char)stream};
    return send_all(grpc, head, sizeof(head)) < 0 ? -1 : send_all(grpc, bytes, length);
}

static int receive_all(struct grpc *grpc, void *bytes, size_t length)
{
    for (char *at = bytes; length;) {
        ssize_t got = recv(grpc->fd, at, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        at += got;
        length -= (size_t)got;
    }
    return 0;
}

static int receive_frame(struct grpc *grpc, struct frame *frame, unsigned char bytes[static FRAME_MAX])
{
    unsigned char head[9];
    if (receive_all(grpc, head, sizeof(head)) < 0)
        return -1;
    *frame = (struct frame){.kind = head[3], .flags = head[4], .stream = be32_at(head + 5) & 0x7fffffff,
                            .length = be32_at(head) >> 8, .bytes = bytes};
    return frame->length > FRAME_MAX ? -1 : receive_all(grpc, bytes, frame->length);
}

/* What concerns the connection as a whole. `window` is the current stream's. */
static int housekeeping(struct grpc *grpc, const struct frame *frame, uint32_t stream, int64_t *window)
{
    switch (frame->kind) {
    case SETTINGS:
        if (frame->flags & ACK)
            return 0;
        for (uint32_t i = 0; i + 6 <= frame->length; i += 6) {
            uint32_t name = be32_at(frame->bytes + i) >> 16, value = be32_at(frame->bytes + i + 2);
            if (name == SETTINGS_INITIAL_WINDOW_SIZE) {
                *window += (int64_t)value - grpc->initial;
                grpc->initial = value;
            } else if (name == SETTINGS_MAX_FRAME_SIZE && value >= FRAME_MAX) {
                grpc->frame = value;
            }
        }
        return send_frame(grpc, SETTINGS, ACK, 0, "", 0);
    case PING:
        return frame->flags & ACK || frame->length != 8 ? 0 : send_frame(grpc, PING, ACK, 0, frame->bytes, 8);
    case WINDOW_UPDATE:
        if (frame->length == 4 && frame->stream == 0)
            grpc->window += be32_at(frame->bytes) & 0x7fffffff;
        else if (frame->length == 4 && frame->stream == stream)
            *window += be32_at(frame->bytes) & 0x7fffffff;
        return 0;
    case GOAWAY:
        return -1;
    default:
        return 0;
    }
}

/* --- calls */

static void header(struct message *block, const char *name, const char *value)
{
    const char *const both[] = {name, value};
    append(block, "", 1); /* a literal without an index, whose name is a literal too (RFC 7541, 6.2.2) */
    for (size_t i = 0; i < COUNT(both); i++) {
        size_t length = strlen(both[i]);
        if (length < 127) {
            append(block, &(unsigned char){(unsigned char)length}, 1);
        } else {
            append(block, &(unsigned char){127}, 1);
            put_varint(block, length - 127);
        }
        append(block, both[i], length);
    }
}

static int send_headers(struct grpc *grpc, uint32_t stream, const char *method, const char *namespace)
{
    scoped_message block = {0};
    header(&block, ":method", "POST");
    header(&block, ":scheme", "http");
    header(&block, ":path", method);
    header(&block, ":authority", "localhost");
    header(&block, "content-type", "application/grpc");
    header(&block, "te", "trailers");
    header(&block, "containerd-namespace", namespace);
    if (block.length > FRAME_MAX)
        return -1;
    return send_frame(grpc, HEADERS, END_HEADERS, stream, block.bytes, block.length);
}

/* A gRPC message is one byte (not compressed), its length, its bytes. */
static int send_request(struct grpc *grpc, uint32_t stream, const struct message *request, int64_t *window,
                        unsigned char *buffer)
{
    scoped_message body = {0};
    uint32_t length = (uint32_t)request->length;
    append(&body, (unsigned char[]){0, (unsigned char)(length >> 24), (unsigned char)(length >> 16),
                                    (unsigned char)(length >> 8), (unsigned char)length}, 5);
    append(&body, request->bytes, request->length);
    for (size_t at = 0; at < body.length;) {
        while (grpc->window <= 0 || *window <= 0) {
            struct frame frame;
            if (receive_frame(grpc, &frame, buffer) < 0 || housekeeping(grpc, &frame, stream, window) < 0)
                return -1;
            if (frame.stream == stream && (frame.kind == RST_STREAM || frame.kind == HEADERS))
                return 1; /* it does not want to hear the rest */
        }
        size_t piece = body.length - at;
        int64_t room = grpc->window < *window ? grpc->window : *window;
        if (piece > (size_t)room)
            piece = (size_t)room;
        if (piece > grpc->frame)
            piece = grpc->frame;
        bool last = at + piece == body.length;
        if (send_frame(grpc, DATA, last ? END_STREAM : 0, stream, body.bytes + at, piece) < 0)
            return -1;
        grpc->window -= (int64_t)piece;
        *window -= (int64_t)piece;
        at += piece;
    }
    return 0;
}

/* The bytes of a DATA frame, with what the peer may send more announced. */
static int take_data(struct grpc *grpc, const struct frame *frame, uint32_t stream, struct message *answer)
{
    size_t skip = frame->flags & PADDED ? 1 : 0;
    size_t padding = skip && frame->length ? frame->bytes[0] : 0;
    if (skip + padding > frame->length || answer->length + frame->length > GRPC_MESSAGE_MAX)
        return -1;
    append(answer, frame->bytes + skip, frame->length - skip - padding);
    if (!frame->length)
        return 0;
    unsigned char more[4] = {0, 0, (unsigned char)(frame->length >> 8), (unsigned char)frame->length};
    return send_frame(grpc, WINDOW_UPDATE, 0, 0, more, 4) < 0 ? -1 : send_frame(grpc, WINDOW_UPDATE, 0, stream, more, 4);
}

static int receive_response(struct grpc *grpc, uint32_t stream, int64_t *window, struct message *response,
                            unsigned char *buffer)
{
    scoped_message answer = {0};
    for (struct frame frame; receive_frame(grpc, &frame, buffer) == 0;) {
        if (housekeeping(grpc, &frame, stream, window) < 0)
            return -1;
        if (frame.stream != stream)
            continue;
        if (frame.kind == RST_STREAM)
            return 1;
        if (frame.kind == DATA && take_data(grpc, &frame, stream, &answer) < 0)
            return -1;
        if ((frame.kind != DATA && frame.kind != HEADERS) || !(frame.flags & END_STREAM))
            continue;
        if (answer.length < 5 || answer.bytes[0] != 0 || be32_at(answer.bytes + 1) != answer.length - 5)
            return 1;
        if (response)
            append(response, answer.bytes + 5, answer.length - 5);
        return 0;
    }
    return -1;
}

int grpc_call(struct grpc *grpc, const char *method, const char *namespace, const struct message *request,
              struct message *response)
{
    uint32_t stream = grpc->stream;
    int64_t window = grpc->initial;
    scoped_free unsigned char *buffer = must_alloc(FRAME_MAX);
    grpc->stream += 2;
    if (request->length > GRPC_MESSAGE_MAX || send_headers(grpc, stream, method, namespace) < 0)
        return -1;
    int failed = send_request(grpc, stream, request, &window, buffer);
    return failed ? failed : receive_response(grpc, stream, &window, response, buffer);
}

int grpc_open(struct grpc *grpc, const char *path, int seconds)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = seconds};
    *grpc = (struct grpc){.fd = -1, .stream = 1, .window = WINDOW, .initial = WINDOW, .frame = FRAME_MAX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    grpc->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (grpc->fd < 0 || setsockopt(grpc->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        setsockopt(grpc->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
        connect(grpc->fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        send_all(grpc, preface, sizeof(preface) - 1) < 0)
        return -1;
    return send_frame(grpc, SETTINGS, 0, 0, "", 0);
}

void grpc_close(struct grpc *grpc)
{
    if (grpc->fd >= 0)
        close(grpc->fd);
    grpc->fd = -1;
}
