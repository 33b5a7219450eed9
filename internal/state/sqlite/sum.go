package sqlite

import (
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"sync"

	"modernc.org/sqlite"
)

// registerFunctions teaches SQLite isthmus_sum and isthmus_link, once in a process: the driver knows functions only by
// a global table.
var registerFunctions = sync.OnceValue(func() error { return errors.Join(registerSum(), registerLink()) })

func registerSum() error {
	return sqlite.RegisterDeterministicScalarFunction("isthmus_sum", -1,
		func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			var s summer
			for _, a := range args {
				if err := s.addValue(a); err != nil {
					return nil, err
				}
			}
			return s.sum(), nil
		})
}

// registerLink makes isthmus_link the SHA-256 of its arguments: the link of the event before, and an event's own
// content.
func registerLink() error {
	return sqlite.RegisterDeterministicScalarFunction("isthmus_link", -1,
		func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
			h := sha256.New()
			for _, a := range args {
				kind, b, err := encodeValue(a)
				if err != nil {
					return nil, err
				}
				h.Write(chunkHead(kind, b))
				h.Write(b)
			}
			return h.Sum(nil), nil
		})
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// summer folds values into a checksum. It finds accidents; who can write the file on purpose can write the sum too.
type summer struct{ crc uint64 }

func (s *summer) add(texts ...string) {
	for _, t := range texts {
		s.chunk('t', []byte(t))
	}
}

func (s *summer) addValue(v driver.Value) error {
	kind, b, err := encodeValue(v)
	if err == nil {
		s.chunk(kind, b)
	}
	return err
}

func encodeValue(v driver.Value) (kind byte, b []byte, err error) {
	switch v := v.(type) {
	case nil:
		return 'n', nil, nil
	case int64:
		return 'i', binary.BigEndian.AppendUint64(nil, uint64(v)), nil
	case string:
		return 't', []byte(v), nil
	case []byte:
		return 'b', v, nil
	default:
		return 0, nil, fmt.Errorf("a value of type %T has no checksum", v)
	}
}

func (s *summer) chunk(kind byte, b []byte) {
	s.crc = crc64.Update(crc64.Update(s.crc, crcTable, chunkHead(kind, b)), crcTable, b)
}

// chunkHead marks kind and length, so that two different rows never fold the same bytes.
func chunkHead(kind byte, b []byte) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, uint64(len(b)))
}

func (s *summer) sum() int64 { return int64(s.crc) }
