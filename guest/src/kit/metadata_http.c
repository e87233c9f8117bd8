/* HTTP/1.1 as metadata services speak it (RFC 9112): no TLS, no redirects, everything bounded in size and time. */
#define _GNU_SOURCE
#include "metadata.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define HEADERS_MAX 16384
#define TRIES 3
#define STEP 16384 /* bytes that have to come within METADATA_SECONDS for a transfer to go on */

struct connection {
    int fd;
    double deadline;
    char buffer[8192];
    size_t used, taken; /* of the buffer */
    size_t come;        /* bytes since the deadline was set */
    int error;          /* why there is no connection */
    char *reason;
};

static bool failed(struct connection *from, const char *what)
{
    snprintf(from->reason, sizeof(((struct answer *)0)->reason), "%s", what);
    return false;
}

/* Waits until the socket can do it. */
static bool ready(struct connection *from, short events)
{
    for (;;) {
        double left = from->deadline - now();
        if (left <= 0)
            return failed(from, "no answer in time");
        int got = poll(&(struct pollfd){.fd = from->fd, .events = events}, 1, (int)(left * 1e3) + 1);
        if (got > 0)
            return true;
        if (got < 0 && errno != EINTR)
            return failed(from, strerror(errno));
    }
}

/* Ports below 1024 show that the one who asks is root. Without that right the question is asked all the same. */
static void take_low_port(int fd, int family)
{
    for (unsigned port = 1023; port >= 512; port--) {
        struct sockaddr_storage address = {.ss_family = (sa_family_t)family};
        socklen_t length = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
        if (family == AF_INET6)
            ((struct sockaddr_in6 *)&address)->sin6_port = htons((uint16_t)port);
        else
            ((struct sockaddr_in *)&address)->sin_port = htons((uint16_t)port);
        if (bind(fd, (struct sockaddr *)&address, length) == 0 || errno != EADDRINUSE)
            return;
    }
}

static bool connect_to(struct connection *to, const struct addrinfo *address, bool low_port)
{
    to->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (to->fd < 0)
        return failed(to, strerror(errno));
    if (low_port)
        take_low_port(to->fd, address->ai_family);
    if (connect(to->fd, address->ai_addr, address->ai_addrlen) == 0)
        return true;
    int error = errno;
    socklen_t length = sizeof(error);
    if (error == EINPROGRESS) {
        if (!ready(to, POLLOUT))
            return false;
        getsockopt(to->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    }
    to->error = error;
    return error ? failed(to, strerror(error)) : true;
}

static bool dial(struct connection *to, const struct question *question)
{
    scoped_free char *base_host = NULL, *base_path = NULL;
    const char *host = question->host;
    unsigned port = question->port ? question->port : 80;
    if (metadata_options.base) {
        if (!url_split(metadata_options.base, &base_host, &port, &base_path))
            return failed(to, "-base is not http://ADDRESS:PORT");
        host = base_host;
    }
    char number[12];
    snprintf(number, sizeof(number), "%u", port);
    struct addrinfo *list = NULL, wanted = {.ai_socktype = SOCK_STREAM};
    int error = getaddrinfo(host, number, &wanted, &list);
    if (error)
        return failed(to, gai_strerror(error));
    bool connected = false;
    for (struct addrinfo *at = list; at && !connected; at = at->ai_next) {
        close_scoped(&to->fd);
        to->fd = -1;
        to->error = 0;
        connected = connect_to(to, at, question->low_port);
    }
    freeaddrinfo(list);
    return connected;
}

static bool send_all(struct connection *to, const char *bytes, size_t length)
{
    while (length) {
        ssize_t done = send(to->fd, bytes, length, MSG_NOSIGNAL);
        if (done < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!ready(to, POLLOUT))
                return false;
            continue;
        }
        if (done < 0)
            return failed(to, strerror(errno));
        bytes += done;
        length -= (size_t)done;
    }
    return true;
}

/* What is long may take long, as long as it comes. */
static void came(struct connection *from, size_t bytes)
{
    from->come += bytes;
    if (from->come < STEP)
        return;
    from->come = 0;
    from->deadline = now() + METADATA_SECONDS;
    if (metadata_options.progress >= 0)
        (void)!write(metadata_options.progress, ".", 1);
}

/* More bytes into the empty buffer: 1, 0 at the end, -1 and why. */
static int fill(struct connection *from)
{
    for (;;) {
        ssize_t got = recv(from->fd, from->buffer, sizeof(from->buffer), 0);
        if (got >= 0) {
            from->used = (size_t)got;
            from->taken = 0;
            came(from, (size_t)got);
            return got > 0;
        }
        if (errno != EAGAIN && errno != EINTR) {
            failed(from, strerror(errno));
            return -1;
        }
        if (!ready(from, POLLIN))
            return -1;
    }
}

/* A line without its end into `line`; a longer one, or the end before it, is an error. */
static bool read_text_line(struct connection *from, char *line, size_t room)
{
    for (size_t length = 0;;) {
        if (from->taken == from->used) {
            int got = fill(from);
            if (got < 0)
                return false;
            if (got == 0)
                return failed(from, "the answer was cut off");
        }
        char c = from->buffer[from->taken++];
        if (c == '\n') {
            line[length && line[length - 1] == '\r' ? length - 1 : length] = 0;
            return true;
        }
        if (length + 1 >= room)
            return failed(from, "a line of the answer is too long");
        line[length++] = c;
    }
}

struct body {
    char *bytes;
    size_t length, room, limit;
};

static bool body_add(struct body *body, const char *bytes, size_t length)
{
    if (length > body->limit - body->length)
        return false;
    if (body->length + length + 1 > body->room) {
        size_t room = body->room ? body->room : 4096;
        while (room < body->length + length + 1)
            room *= 2;
        char *bigger = must_alloc(room);
        if (body->length)
            memcpy(bigger, body->bytes, body->length);
        free(body->bytes);
        body->bytes = bigger;
        body->room = room;
    }
    if (length)
        memcpy(body->bytes + body->length, bytes, length);
    body->length += length;
    body->bytes[body->length] = 0;
    return true;
}

/* `length` bytes, or with SIZE_MAX all there are. */
static bool read_body(struct connection *from, struct body *body, size_t length)
{
    bool to_end = length == SIZE_MAX;
    if (!to_end && length > body->limit - body->length)
        return failed(from, "the answer is too large");
    while (length) {
        if (from->taken == from->used) {
            int got = fill(from);
            if (got < 0)
                return false;
            if (got == 0)
                return to_end ? true : failed(from, "the answer was cut off");
        }
        size_t there = from->used - from->taken;
        size_t part = there < length ? there : length;
        if (!body_add(body, from->buffer + from->taken, part))
            return failed(from, "the answer is too large");
        from->taken += part;
        if (!to_end)
            length -= part;
    }
    return true;
}

/* Digits only, as many as there are: strtoull() would take signs and blanks. */
static bool number_of(const char *text, unsigned base, size_t *number)
{
    static const char digits[] = "0123456789abcdef";
    *number = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        const char *digit = memchr(digits, tolower((unsigned char)*text), base);
        if (!digit || *number > (SIZE_MAX >> 8))
            return false;
        *number = *number * base + (size_t)(digit - digits);
    }
    return true;
}

static bool read_chunks(struct connection *from, struct body *body)
{
    char line[1024];
    for (;;) {
        size_t size;
        if (!read_text_line(from, line, sizeof(line)))
            return false;
        line[strcspn(line, "; \t")] = 0;
        if (!number_of(line, 16, &size))
            return failed(from, "a chunk of the answer has no size");
        if (size == 0)
            break;
        if (!read_body(from, body, size) || !read_text_line(from, line, sizeof(line)))
            return false;
        if (*line)
            return failed(from, "a chunk of the answer is longer than it says");
    }
    do
        if (!read_text_line(from, line, sizeof(line)))
            return false;
    while (*line);
    return true;
}

static bool read_answer(struct connection *from, struct answer *answer, size_t limit)
{
    char line[4096];
    struct body headers = {.limit = HEADERS_MAX}, body = {.limit = limit};
    int status = 0, end = 0;
    if (!read_text_line(from, line, sizeof(line)))
        return false;
    if (sscanf(line, "HTTP/1.%*1[01] %3d%n", &status, &end) != 1 || status < 100 || (line[end] && line[end] != ' '))
        return failed(from, "the answer is not HTTP");
    do {
        if (!body_add(&headers, line, strlen(line)) || !body_add(&headers, "\n", 1)) {
            free(headers.bytes);
            return failed(from, "the answer's headers are too large");
        }
        if (!read_text_line(from, line, sizeof(line))) {
            free(headers.bytes);
            return false;
        }
    } while (*line);
    answer->headers = headers.bytes;
    scoped_free char *length_text = answer_header(answer, "Content-Length");
    scoped_free char *coding = answer_header(answer, "Transfer-Encoding");
    size_t length = SIZE_MAX;
    body_add(&body, "", 0);
    bool whole = coding && strcasecmp(coding, "chunked") == 0 ? read_chunks(from, &body)
                 : coding ? failed(from, "the answer is in an unknown encoding")
                 : length_text && !number_of(length_text, 10, &length) ? failed(from, "the answer has no valid length")
                                                                       : read_body(from, &body, length);
    if (!whole) {
        free(body.bytes);
        return false;
    }
    answer->status = status;
    answer->body = body.bytes;
    answer->length = body.length;
    return true;
}

char *answer_header(const struct answer *answer, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = answer->headers ? strchr(answer->headers, '\n') : NULL; at; at = strchr(at, '\n')) {
        at++;
        if (strncasecmp(at, name, length) || at[length] != ':')
            continue;
        const char *value = at + length + 1;
        value += strspn(value, " \t");
        size_t size = strcspn(value, "\n");
        while (size && (value[size - 1] == ' ' || value[size - 1] == '\t'))
            size--;
        return format("%.*s", (int)size, value);
    }
    return NULL;
}

void answer_free(struct answer *answer)
{
    free(answer->headers);
    free(answer->body);
    *answer = (struct answer){0};
}

/* A name or address, and the port where it is not the usual one (RFC 9110, 7.2). The caller frees it. */
static char *host_header(const struct question *question)
{
    bool plain = !strchr(question->host, ':');
    const char *open = plain ? "" : "[", *close = plain ? "" : "]";
    return question->port && question->port != 80 ? format("%s%s%s:%u", open, question->host, close, question->port)
                                                  : format("%s%s%s", open, question->host, close);
}

static bool ask_once(struct answer *answer, const struct question *question, double deadline)
{
    struct connection to = {.fd = -1, .deadline = deadline, .reason = answer->reason};
    scoped_free char *length =
        question->body ? format("Content-Length: %zu\r\n", strlen(question->body)) : must_dup("");
    scoped_free char *host = host_header(question);
    scoped_free char *text =
        format("%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: linuxkit-metadata\r\nAccept: */*\r\nConnection: close\r\n"
               "%s%s\r\n%s",
               question->method ? question->method : "GET", question->path, host, length,
               question->headers ? question->headers : "", question->body ? question->body : "");
    bool done = (answer->reached = dial(&to, question)) && send_all(&to, text, strlen(text)) &&
                read_answer(&to, answer, question->limit ? question->limit : VALUE_MAX);
    close_scoped(&to.fd);
    answer->refused = !answer->reached && (to.error == ECONNREFUSED || to.error == ENETUNREACH || to.error == EHOSTUNREACH);
    return done;
}

/* Services say these when they are asked too much or restart. */
static bool may_pass(int status)
{
    return status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

bool ask(struct answer *answer, const struct question *question)
{
    double deadline = now() + METADATA_SECONDS;
    *answer = (struct answer){0};
    for (int try = 1;; try++) {
        bool came = ask_once(answer, question, deadline);
        if (came && answer->status != 200)
            snprintf(answer->reason, sizeof(answer->reason), "status %d", answer->status);
        detail("%s %s%s: %s", question->method ? question->method : "GET", question->host, question->path,
               came && answer->status == 200 ? "ok" : answer->reason);
        bool again = answer->refused ? metadata_options.patient : answer->reached && try < TRIES;
        if (answer->refused && now() + 0.2 > deadline)
            metadata_options.patient = false; /* nobody came: the next question need not wait as long */
        if ((came && !may_pass(answer->status)) || !again || now() + 0.2 > deadline)
            return came && answer->status == 200;
        answer_free(answer);
        pause_ms(try < TRIES ? 100L * try : 100L * TRIES);
    }
}

bool ask_json(struct answer *answer, struct json_document *document, const struct question *question)
{
    *document = (struct json_document){0};
    if (!ask(answer, question))
        return false;
    if (json_read(document, answer->body, answer->length))
        return true;
    snprintf(answer->reason, sizeof(answer->reason), "not JSON: %s", document->error);
    return false;
}

/* Where the host's name ends: "[::1]" is an address of IPv6. */
static size_t host_length(const char *start, size_t length)
{
    const char *end = *start == '[' ? memchr(start, ']', length) : memchr(start, ':', length);
    return !end ? length : (size_t)(end - start) + (*start == '[');
}

bool url_split(const char *url, char **host, unsigned *port, char **path)
{
    if (!starts_with(url, "http://"))
        return false;
    const char *start = url + strlen("http://");
    size_t length = strcspn(start, "/"), name = host_length(start, length), number = 80;
    if (name < length) {
        scoped_free char *digits = format("%.*s", (int)(length - name - 1), start + name + 1);
        if (start[name] != ':' || !number_of(digits, 10, &number))
            return false;
    }
    bool brackets = name > 2 && *start == '[' && start[name - 1] == ']';
    if (name == 0 || name > 255 || number == 0 || number > 65535 || (*start == '[' && !brackets))
        return false;
    for (const char *at = start; *at; at++) /* it becomes part of a request's first lines */
        if (*at <= ' ' || *at == 127)
            return false;
    *host = format("%.*s", (int)name - 2 * brackets, start + brackets);
    *port = (unsigned)number;
    *path = must_dup(start[length] ? start + length : "/");
    return true;
}
