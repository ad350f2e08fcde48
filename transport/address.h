/* Addresses and the sockets behind them: unix:PATH, unix:@NAME (abstract), tcp:HOST:PORT.  For
 * boot.h's listen and connect; parsed here and nowhere else. */
#ifndef TFR_TRANSPORT_ADDRESS_H
#define TFR_TRANSPORT_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/status.h"

/* A connected socket, non-blocking and close-on-exec.  TFR_E_PEER and TFR_E_TIMEOUT make no line at
 * level error.  A name that the system does not resolve by then is an error, said. */
tfr_status tfr_address_connect(const char *addr, uint64_t deadline_ns, int *fd_out);

bool tfr_address_is_tcp(const char *addr);

enum { TFR_ADDRESS_TEXT = 64 };

/* HOST:PORT for people, as they would write it: an IPv4 address also where it came to an IPv6
 * socket. Returns text. */
const char *tfr_address_text(const struct sockaddr_storage *addr, char text[TFR_ADDRESS_TEXT]);

/* What every boot connection over TCP has: no delays, and an end within 4 s if the other host is
 * gone. */
void tfr_address_tune(int fd);

/* TFR_LOST_MS within its bounds. */
uint32_t tfr_address_lost_ms(void);

#endif
