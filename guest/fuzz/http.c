/* Answers of HTTP servers, and URLs. */
#include "../src/kit/metadata_http.c"
#include "fuzz.h"

void fuzz_http(const unsigned char *bytes, size_t length)
{
    scoped_answer answer = {0};
    struct connection from = {.fd = fuzz_socket(bytes, length), .deadline = now() + 1, .reason = answer.reason};
    bool whole = read_answer(&from, &answer, 20000);
    if (whole && (answer.length > 20000 || answer.body[answer.length]))
        abort();
    if (!whole && !*answer.reason)
        abort();
    scoped_free char *value = answer_header(&answer, "Metadata-Flavor");
    close(from.fd);
}

void fuzz_url(const unsigned char *bytes, size_t length)
{
    scoped_free char *text = fuzz_text(bytes, length), *host = NULL, *path = NULL;
    unsigned port;
    if (url_split(text, &host, &port, &path) && (!port || port > 65535 || *path != '/' || strpbrk(path, " \r\n")))
        abort();
}
