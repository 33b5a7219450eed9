// Package websocket speaks as much of RFC 6455 as the demo needs: whole text messages, both ways.
package websocket

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// maxMessage is the longest message that is taken.
const maxMessage = 64 << 10

// Frames' first byte, of a message in one frame (RFC 6455 §5.2).
const (
	text     = 0x81
	closing  = 0x88
	ping     = 0x89
	pong     = 0x8a
	maskFlag = 0x80
)

// Conn is one WebSocket. One goroutine reads, one writes.
type Conn struct {
	net.Conn
	in     *bufio.Reader
	client bool // a client masks what it sends
}

// Accept answers a client that asks for a WebSocket; any other request gets 426.
func Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is a WebSocket", http.StatusUpgradeRequired)
		return nil, errors.New("no WebSocket was asked for")
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take the connection over: %w", err)
	}
	served := ""
	if by := w.Header().Get("Served-By"); by != "" {
		served = "Served-By: " + by + "\r\n"
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: %s\r\n%s\r\n", accepted(key), served)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Conn{Conn: conn, in: rw.Reader}, nil
}

// Refused is the answer of a server that did not agree.
type Refused struct {
	Status int
	Header http.Header
	Body   string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("%d %s", r.Status, strings.TrimSpace(r.Body))
}

// Dial opens a WebSocket at an http URL.
func Dial(ctx context.Context, address string) (*Conn, http.Header, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, nil, err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, nil, err
	}
	c := &Conn{Conn: conn, in: bufio.NewReader(conn), client: true}
	header, err := c.handshake(ctx, u)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return c, header, nil
}

func (c *Conn) handshake(ctx context.Context, u *url.URL) (http.Header, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails
	key := base64.StdEncoding.EncodeToString(random)
	_, err := fmt.Fprintf(c.Conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", u.RequestURI(), u.Host, key)
	if err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxMessage)) // what there is of it
		return nil, &Refused{resp.StatusCode, resp.Header, string(body)}
	}
	if got := resp.Header.Get("Sec-WebSocket-Accept"); got != accepted(key) {
		return nil, fmt.Errorf("the answer is not to this request: Sec-WebSocket-Accept is %q", got)
	}
	return resp.Header, nil
}

// accepted proves that the server has read the request (RFC 6455 §4.2.2).
func accepted(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Send writes one text message.
func (c *Conn) Send(message string) error { return c.write(text, []byte(message)) }

func (c *Conn) write(kind byte, payload []byte) error {
	frame := []byte{kind, 0}
	switch n := len(payload); {
	case n > 0xffff:
		return fmt.Errorf("a message of %d bytes is too long", n)
	case n > 125:
		frame[1] = 126
		frame = binary.BigEndian.AppendUint16(frame, uint16(n))
	default:
		frame[1] = byte(n)
	}
	if c.client {
		frame[1] |= maskFlag
		mask := make([]byte, 4)
		_, _ = rand.Read(mask) // never fails
		frame = append(frame, mask...)
		payload = masked(payload, mask)
	}
	_, err := c.Conn.Write(append(frame, payload...))
	return err
}

// Receive reads the next text message; io.EOF says that the other side has closed the WebSocket.
func (c *Conn) Receive() (string, error) {
	for {
		kind, payload, err := c.read()
		if err != nil {
			return "", err
		}
		switch kind {
		case text:
			return string(payload), nil
		case ping:
			err = c.write(pong, payload)
		case pong:
		case closing:
			_ = c.write(closing, payload) // it leaves anyway
			return "", io.EOF
		default:
			err = fmt.Errorf("a frame that begins with %#x, which is not understood here", kind)
		}
		if err != nil {
			return "", err
		}
	}
}

func (c *Conn) read() (kind byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.in, head); err != nil {
		return 0, nil, err
	}
	n := int(head[1] &^ maskFlag)
	if n == 126 {
		long := make([]byte, 2)
		if _, err := io.ReadFull(c.in, long); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint16(long))
	}
	if n > maxMessage || head[1]&^maskFlag == 127 {
		return 0, nil, errors.New("a message is too long")
	}
	if isMasked := head[1]&maskFlag != 0; isMasked == c.client {
		return 0, nil, errors.New("clients mask what they send, and servers do not")
	}
	var mask []byte
	if !c.client {
		mask = make([]byte, 4)
		if _, err := io.ReadFull(c.in, mask); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(c.in, payload); err != nil {
		return 0, nil, err
	}
	return head[0], masked(payload, mask), nil
}

// masked is a payload with its mask laid on, or taken off.
func masked(payload, mask []byte) []byte {
	if len(mask) == 0 {
		return payload
	}
	out := make([]byte, len(payload))
	for i, b := range payload {
		out[i] = b ^ mask[i%4]
	}
	return out
}

// Close says good-bye and closes the connection.
func (c *Conn) Close() error {
	_ = c.write(closing, nil) // perhaps nobody hears it
	return c.Conn.Close()
}
