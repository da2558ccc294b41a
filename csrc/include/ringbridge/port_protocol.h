/* port_protocol.h: what is said between a BEAM and the shepherd of its bridge.
 *
 * `ringbridge-shepherd port` is the program of an Erlang port opened with {packet, 4}: each frame is a
 * length (4 bytes, big-endian), one byte that says what it is, and the rest. Numbers are big-endian, as
 * Erlang's binaries have them. elixir_client/lib/ringbridge/server/wire.ex is the other side;
 * tests/workers/test_shepherd_port.py holds both to this file.
 *
 *   BEAM -> shepherd
 *     START   version (1 byte), grace_ms (4), argc (2), envc (2), stdin_bytes (4); NUL-terminated strings:
 *             directory ("" = as it is), argc arguments (the first is the path to execute), envc entries
 *             NAME=value; then what the program reads on its stdin. Once.
 *     STOP    grace_ms (4) between TERM and KILL
 *   shepherd -> BEAM
 *     STARTED pid (4) of the program: its exec has succeeded
 *     OUTPUT  bytes of its stdout and stderr, as they come
 *     READY   bytes that it wrote on descriptor RB_PORT_READY_FD
 *     LOST    bytes (4) of output that are missing here: the BEAM did not read
 *     EXITED  status (4, signed; -1 = by a signal), signal (4): the last frame
 *     ERROR   errno (4), text: nothing runs, and it is the last frame. After STARTED: a frame was refused
 *
 * End of file on the shepherd's stdin means that nobody is left to own the program: the BEAM has ended, or the
 * process that had the port has. It is ended then, with RB_PORT_ORPHAN_GRACE_MS at most.
 */
#ifndef RINGBRIDGE_PORT_PROTOCOL_H
#define RINGBRIDGE_PORT_PROTOCOL_H

#define RB_PORT_VERSION 1
#define RB_PORT_READY_FD 3

#define RB_PORT_FRAME_MAX 262144 /* bytes of one frame to the shepherd, its length not counted */
#define RB_PORT_ARGC_MAX 256
#define RB_PORT_ENVC_MAX 4096
#define RB_PORT_STDIN_MAX 4096 /* PIPE_BUF: it is written before anybody reads (pipe(7)) */
#define RB_PORT_ORPHAN_GRACE_MS 500

#define RB_PORT_START 's'
#define RB_PORT_STOP 't'
#define RB_PORT_STARTED 'S'
#define RB_PORT_OUTPUT 'O'
#define RB_PORT_READY 'R'
#define RB_PORT_LOST 'L'
#define RB_PORT_EXITED 'X'
#define RB_PORT_ERROR 'E'

#endif
