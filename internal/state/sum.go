package state

import (
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"sync"

	"modernc.org/sqlite"
)

// registerSum teaches SQLite the function isthmus_sum, once in a process: the driver knows functions only by a global table.
var registerSum = sync.OnceValue(func() error {
	return sqlite.RegisterDeterministicScalarFunction("isthmus_sum", -1, func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
		var s summer
		for _, a := range args {
			if err := s.addValue(a); err != nil {
				return nil, err
			}
		}
		return s.sum(), nil
	})
})

var crcTable = crc64.MakeTable(crc64.ECMA)

// summer folds values into a checksum. It finds accidents; who can write the file on purpose can write the sum too.
type summer struct{ crc uint64 }

func (s *summer) add(texts ...string) {
	for _, t := range texts {
		s.chunk('t', []byte(t))
	}
}

func (s *summer) addValue(v driver.Value) error {
	switch v := v.(type) {
	case nil:
		s.chunk('n', nil)
	case int64:
		s.chunk('i', binary.BigEndian.AppendUint64(nil, uint64(v)))
	case string:
		s.chunk('t', []byte(v))
	case []byte:
		s.chunk('b', v)
	default:
		return fmt.Errorf("isthmus_sum of a %T", v)
	}
	return nil
}

// chunk marks kind and length, so that two different rows never fold the same bytes.
func (s *summer) chunk(kind byte, b []byte) {
	head := binary.BigEndian.AppendUint64([]byte{kind}, uint64(len(b)))
	s.crc = crc64.Update(crc64.Update(s.crc, crcTable, head), crcTable, b)
}

func (s *summer) sum() int64 { return int64(s.crc) }
