/* libzmq's bare sockets, doing next to nothing, as the measure for a registry's transport (bench/transport):
 *
 * A ROUTER that answers each request at once with the same reply, as long as a registry's; and a PUB, which sends one
 * event for each request that registers something, and n events for a request whose body is the number n. Replies and
 * events are constants that libzmq sends without a copy: the best that it can do. Nothing is dropped: all high-water
 * marks are off.
 *
 * usage: libzmq REQUESTS_PORT EVENTS_PORT REPLY_BYTES EVENT_BYTES     (on 127.0.0.1, until it gets a signal)
 *
 * bench/transport links this against the libzmq that the pinned pyzmq brings, which comes without a header; so what is
 * used of zmq.h stands here. It is the stable ABI of libzmq 4.
 */
#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  _Alignas(void *) unsigned char opaque[64];
} zmq_msg_t;

void *zmq_ctx_new(void);
void *zmq_socket(void *context, int type);
int zmq_setsockopt(void *socket, int option, const void *value, size_t length);
int zmq_bind(void *socket, const char *endpoint);
int zmq_msg_init(zmq_msg_t *message);
int zmq_msg_init_data(zmq_msg_t *message, void *data, size_t length, void (*release)(void *, void *), void *hint);
int zmq_msg_recv(zmq_msg_t *message, void *socket, int flags);
int zmq_msg_send(zmq_msg_t *message, void *socket, int flags);
int zmq_msg_more(const zmq_msg_t *message);
void *zmq_msg_data(zmq_msg_t *message);
size_t zmq_msg_size(const zmq_msg_t *message);
int zmq_msg_close(zmq_msg_t *message);
int zmq_errno(void);
const char *zmq_strerror(int error);

enum { ZMQ_PUB = 1, ZMQ_ROUTER = 6 };
enum { ZMQ_SNDMORE = 2 };
enum { ZMQ_SNDHWM = 23, ZMQ_RCVHWM = 24 };

static void must(int holds, const char *what) {
  if (!holds) {
    fprintf(stderr, "libzmq: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
  }
}

static void *bound(void *context, int type, const char *port) {
  void *socket = zmq_socket(context, type);
  must(socket != NULL, "socket");
  int unlimited = 0;
  must(zmq_setsockopt(socket, ZMQ_SNDHWM, &unlimited, sizeof unlimited) == 0, "ZMQ_SNDHWM");
  must(zmq_setsockopt(socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited) == 0, "ZMQ_RCVHWM");
  char endpoint[64];
  snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%s", port);
  must(zmq_bind(socket, endpoint) == 0, endpoint);
  return socket;
}

/* A JSON object of that length, which says success. */
static char *padded(const char *length) {
  static const char head[] = "{\"success\":true,\"padding\":\"", tail[] = "\"}";
  size_t bytes = strtoul(length, NULL, 10), around = strlen(head) + strlen(tail);
  if (bytes < around) bytes = around;
  char *json = malloc(bytes + 1);
  must(json != NULL, "malloc");
  memset(json, 'x', bytes);
  memcpy(json, head, strlen(head));
  strcpy(json + bytes - strlen(tail), tail);
  return json;
}

static void send_constant(void *socket, const char *data, size_t length, int flags) {
  zmq_msg_t message;
  must(zmq_msg_init_data(&message, (void *)data, length, NULL, NULL) == 0, "message");
  must(zmq_msg_send(&message, socket, flags) >= 0, "send");
}

static int begins(const char *body, size_t length, const char *with) {
  return length >= strlen(with) && memcmp(body, with, strlen(with)) == 0;
}

/* How many events a request asks for. */
static unsigned long events_for(const char *body, size_t length) {
  char digits[16] = "";
  if (length > 0 && length < sizeof digits && isdigit((unsigned char)*body)) {
    memcpy(digits, body, length);
    return strtoul(digits, NULL, 10);
  }
  return begins(body, length, "{\"action\":\"register\"");
}

int main(int count, char **arguments) {
  if (count != 5) {
    fprintf(stderr, "usage: libzmq REQUESTS_PORT EVENTS_PORT REPLY_BYTES EVENT_BYTES\n");
    return 2;
  }
  void *context = zmq_ctx_new();
  void *requests = bound(context, ZMQ_ROUTER, arguments[1]);
  void *events = bound(context, ZMQ_PUB, arguments[2]);
  const char *reply = padded(arguments[3]), *event = padded(arguments[4]);
  size_t reply_bytes = strlen(reply), event_bytes = strlen(event);
  for (;;) {
    zmq_msg_t identity, part;
    zmq_msg_init(&identity);
    must(zmq_msg_recv(&identity, requests, 0) >= 0, "receive");
    /* What goes before the body: "REQ", or REQ's empty delimiter, or nothing. */
    int is_typed = 0, has_delimiter = 0, more;
    unsigned long wanted = 0;
    do {
      zmq_msg_init(&part);
      must(zmq_msg_recv(&part, requests, 0) >= 0, "receive");
      more = zmq_msg_more(&part);
      if (!more) wanted = events_for(zmq_msg_data(&part), zmq_msg_size(&part));
      else if (zmq_msg_size(&part) == 0) has_delimiter = 1;
      else is_typed = 1;
      zmq_msg_close(&part);
    } while (more);
    for (; wanted > 0; wanted--) {
      send_constant(events, "register", strlen("register"), ZMQ_SNDMORE);
      send_constant(events, event, event_bytes, 0);
    }
    must(zmq_msg_send(&identity, requests, ZMQ_SNDMORE) >= 0, "send");
    if (has_delimiter) send_constant(requests, "", 0, ZMQ_SNDMORE);
    if (is_typed) send_constant(requests, "RESPONSE", strlen("RESPONSE"), ZMQ_SNDMORE);
    send_constant(requests, reply, reply_bytes, 0);
  }
}
