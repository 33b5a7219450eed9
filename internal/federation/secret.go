package federation

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
)

const secretBytes = 32

// Secret is the one-time secret of an invitation. It always prints as "[redacted]".
type Secret struct{ value [secretBytes]byte }

func newSecret() Secret {
	var s Secret
	_, _ = rand.Read(s.value[:]) // never fails, by its documentation
	return s
}

// ParseSecret parses the result of Reveal.
func ParseSecret(text string) (Secret, error) {
	var s Secret
	if len(text) != base64.RawURLEncoding.EncodedLen(secretBytes) {
		return Secret{}, errors.New("the secret has the wrong length")
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(s.value[:], []byte(text)); err != nil {
		return Secret{}, errors.New("the secret is not base64url") // the underlying error would quote the secret
	}
	return s, nil
}

// Reveal returns the secret as text.
func (s Secret) Reveal() string { return base64.RawURLEncoding.EncodeToString(s.value[:]) }

// Hash returns what the inviter stores. 32 random bytes need neither salt nor a slow hash.
func (s Secret) Hash() [sha256.Size]byte { return sha256.Sum256(s.value[:]) }

// matches compares in constant time.
func (s Secret) matches(hash []byte) bool {
	own := s.Hash()
	return subtle.ConstantTimeCompare(own[:], hash) == 1
}

const redacted = "[redacted]"

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
