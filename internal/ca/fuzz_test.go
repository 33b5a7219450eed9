package ca_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"log/slog"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/state"
)

// forgetful is a store that keeps nothing, since a database in the loop would leave fuzzing little time.
type forgetful struct{ ca.Store }

func (forgetful) Blob(context.Context, string) (state.Blob, error) {
	return state.Blob{}, state.ErrNotFound
}

func (forgetful) Rotation(context.Context) (state.Rotation, error) {
	return state.Rotation{}, state.ErrNotFound
}
func (forgetful) PutBlob(context.Context, state.Blob, []byte) error { return nil }
func (forgetful) AddCert(context.Context, state.Cert, string) error { return nil }
func (forgetful) AddToken(context.Context, state.Token) error       { return nil }

func startForgetful(f *testing.F) *ca.Authority {
	f.Helper()
	cfg := ca.Config{
		TrustDomain: cards, Store: forgetful{}, KeyFile: f.TempDir() + "/ca.key", Log: slog.New(slog.DiscardHandler),
	}
	return must(ca.New(f.Context(), cfg))
}

func FuzzCSR(f *testing.F) {
	a := startForgetful(f)
	f.Add(csr(f, nil))
	f.Add(csr(f, must(rsa.GenerateKey(rand.Reader, 2048))))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		chain, err := a.Sign(t.Context(), der, pay, time.Hour, n1)
		if err != nil {
			if !errors.Is(err, ca.ErrCSR) {
				t.Fatal(err)
			}
			return
		}
		leaf := parse(t, chain)[0]
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cards.example/ns/default/sa/payments" ||
			leaf.IsCA {
			t.Fatalf("got %v, CA %v", leaf.URIs, leaf.IsCA)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add(newToken(f, startForgetful(f), "n1"))
	f.Add("isthmus-join-v1.e30")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ca.ParseToken(text)
		if err == nil {
			if len(token.Addresses) == 0 || len(token.Fingerprint) != 64 || len(token.ID) != 16 ||
				len(token.Secret.Reveal()) != 43 {
				t.Fatalf("taken: %+v", token)
			}
			return
		}
		if !errors.Is(err, ca.ErrTokenMalformed) || len(err.Error()) > 300 {
			t.Fatal(err)
		}
	})
}
