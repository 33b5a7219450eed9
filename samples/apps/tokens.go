package apps

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Banner is what the token vault says first, before the client says anything.
const Banner = "TOKENS 1.0 ready"

// serveTokens answers one line per line: "TOKENISE <digits>" with "OK <token>", "QUIT" with "BYE", all else with "ERR
// <why>".
func serveTokens(ctx context.Context, listen string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	return newVault().serve(ctx, ln)
}

// vault trades card numbers for tokens; the same card gives the same token while the process lives.
type vault struct{ key []byte }

func newVault() vault {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // crypto/rand.Read never fails
	return vault{key: key}
}

func (v vault) serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		conns.Go(func() { v.serveConn(ctx, conn) })
	}
}

func (v vault) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, Banner+"\n"); err != nil {
		return
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		answer := v.answer(lines.Text())
		if _, err := io.WriteString(conn, answer+"\n"); err != nil || answer == "BYE" {
			return
		}
	}
}

func (v vault) answer(line string) string {
	verb, card, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch {
	case verb == "QUIT":
		return "BYE"
	case verb != "TOKENISE":
		return "ERR say TOKENISE <card number> or QUIT"
	case len(card) < 12 || len(card) > 19 || strings.Trim(card, "0123456789") != "":
		return "ERR a card number has 12 to 19 digits"
	}
	mac := hmac.New(sha256.New, v.key)
	mac.Write([]byte(card))
	return "OK tok_" + hex.EncodeToString(mac.Sum(nil)[:8])
}

// Tokenise asks the vault at addr for the token of a card.
func Tokenise(ctx context.Context, addr, card string) (string, error) {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	banner, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read the vault's banner: %w", err)
	}
	if strings.TrimSpace(banner) != Banner {
		return "", fmt.Errorf("%s is no token vault: it said %q", addr, strings.TrimSpace(banner))
	}
	if _, err := fmt.Fprintf(conn, "TOKENISE %s\n", strings.ReplaceAll(card, "\n", "")); err != nil {
		return "", err
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read the vault's answer: %w", err)
	}
	token, ok := strings.CutPrefix(strings.TrimSpace(line), "OK ")
	if !ok {
		return "", fmt.Errorf("the vault answered %q", strings.TrimSpace(line))
	}
	return token, nil
}
