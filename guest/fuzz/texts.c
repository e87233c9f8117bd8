/* JSON, and what metadata is written in: base64, gzip, plans of a network, command lines of the boot stage. */
#include "bootstage.h"
#include "fuzz.h"
#include "metadata.h"

#include <stdio.h>
#include <string.h>

void fuzz_json(const unsigned char *bytes, size_t length)
{
    scoped_json document;
    if (json_read(&document, (const char *)bytes, length)) {
        for (size_t i = 0; i < document.count; i++)
            if (document.values[i].next >= document.count || document.values[i].first >= document.count)
                abort();
        json_text(&document, document.values, "a/0/b");
        json_find(&document, document.values, "network/interfaces/3/name");
    }
    char *quoted = malloc(6 * length + 3);
    size_t size = json_quote(quoted, (const char *)bytes, length);
    if (size > 6 * length + 2)
        abort();
    scoped_json again;
    if (!json_read(&again, quoted, size) || again.values->kind != JSON_STRING)
        abort(); /* what we write we can read */
    free(quoted);
}

void fuzz_encode(const unsigned char *bytes, size_t length)
{
    size_t decoded;
    const char *text = (const char *)bytes;
    scoped_free char *plain = base64_decode(text, length, &decoded);
    if (plain && plain[decoded])
        abort();
    scoped_free char *unpacked = gzip_decode(text, length, 1 << 20, &decoded);
    if (unpacked && (unpacked[decoded] || decoded > 1 << 20))
        abort();
}

void fuzz_metal(const unsigned char *bytes, size_t length)
{
    char reason[160] = "";
    scoped_json document;
    if (!json_read(&document, (const char *)bytes, length))
        return;
    scoped_free char *plan = metal_plan(&document, "eth0 aa:00:00:00:00:01\neth1 aa:00:00:00:00:02\n", reason);
    for (const char *at = plan; at && *at; at++) /* it becomes commands, one a line: no word of a stranger's may make others */
        if ((unsigned char)*at < ' ' && *at != '\n')
            abort();
    if (!plan && !*reason)
        abort();
}

void fuzz_root(const unsigned char *bytes, size_t length)
{
    char reason[REASON_MAX] = "";
    struct root_options options;
    scoped_free char *text = fuzz_text(bytes, length);
    if (root_options_read(&options, text, reason) == 0) {
        if (!options.root || (options.verified && (!options.verity.blocks || strlen(options.verity.root_hash) != 64)))
            abort();
        struct device device = {.major = 254, .minor = 1};
        scoped_free char *table = options.verified ? verity_table(&device, &options.verity) : NULL;
    } else if (!*reason) {
        abort();
    }
    root_options_free(&options);
    scoped_free char *value = cmdline_value(text, "ds");
    cmdline_has(text, "quiet");
}
