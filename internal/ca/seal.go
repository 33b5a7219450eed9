package ca

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// sealKey encrypts private keys at rest, with AES-256-GCM and a random nonce.
type sealKey [32]byte

// String hides the key, whatever prints it.
func (sealKey) String() string { return redacted }

// GoString hides the key from %#v.
func (sealKey) GoString() string { return redacted }

// Format hides the key from every other verb.
func (sealKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

const sealVersion = 1

// seal encrypts text. open decrypts it, only with the same context.
func (k sealKey) seal(context string, text []byte) ([]byte, error) {
	g, err := k.gcm()
	if err != nil {
		return nil, err
	}
	return append([]byte{sealVersion}, g.Seal(nil, nil, text, []byte(context))...), nil
}

func (k sealKey) open(context string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != sealVersion {
		return nil, errors.New("not sealed in a known way")
	}
	g, err := k.gcm()
	if err != nil {
		return nil, err
	}
	return g.Open(nil, nil, sealed[1:], []byte(context))
}

func (k sealKey) gcm() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
