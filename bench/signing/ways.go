package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/proc"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state/sqlite"
)

// way is one way to make a signature or a certificate.
type way struct {
	what    string
	cpu     func() (time.Duration, error) // of who does the work
	callers int                           // at a time
	do      func(caller int) error
}

func ownCPU() (time.Duration, error) {
	u, err := proc.Read(os.Getpid())
	return u.CPU, err
}

// rate is how often it is done in a second of CPU. Who works has one core: in this process, and in the control plane's.
func (w way) rate(turn time.Duration) (float64, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	before, err := w.cpu()
	if err != nil {
		return 0, err
	}
	start, counts := time.Now(), make([]int, w.callers)
	var g errgroup.Group
	for i := range counts {
		g.Go(func() error {
			for time.Since(start) < turn {
				if err := w.do(i); err != nil {
					return err
				}
				counts[i]++
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	after, err := w.cpu()
	n := 0
	for _, c := range counts {
		n += c
	}
	return float64(n) / (after - before).Seconds(), err
}

// request makes a key and a certificate request for it.
func request() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return key, csr, nil
}

// certify is the least that any authority does: read the request, check that its sender has the key, sign.
func certify(csr []byte, issuer *ecdsa.PrivateKey) error {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return err
	}
	if err := req.CheckSignature(); err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour)}
	_, err = x509.CreateCertificate(rand.Reader, template, template, req.PublicKey, issuer)
	return err
}

func sign(text []byte, key *ecdsa.PrivateKey) error {
	sum := sha256.Sum256(text)
	_, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	return err
}

// ownAuthority is a mesh's authority in this process, which certifies and keeps its record on the disk.
func ownAuthority(ctx context.Context, csr []byte) (certify func() error, done func() error, err error) {
	dir, err := os.MkdirTemp("", "isthmus-bench-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	db, err := sqlite.Open(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		return nil, nil, err
	}
	td, err1 := spiffe.ParseTrustDomain(genmesh.TrustDomain)
	id, err2 := spiffe.Workload(td, "default", "payments")
	authority, err3 := ca.New(ctx, ca.Config{
		TrustDomain: td, Store: db, KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.DiscardHandler),
	})
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	certify = func() error {
		_, err := authority.Sign(ctx, csr, id, 0, ca.Holder{Node: "node", Generation: "00112233445566aa"})
		return err
	}
	return certify, func() error { return errors.Join(db.Close(), os.RemoveAll(dir)) }, nil
}
