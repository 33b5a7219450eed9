package probe

import (
	"context"
	"time"

	"isthmus.dev/isthmus/samples/websocket"
)

// chat sends messages until ctx ends.
func chat(ctx context.Context, c Chat) Result {
	start := time.Now()
	sum := Result{}
	var conn *websocket.Conn
	for ctx.Err() == nil {
		sum.Requests++
		began, phase := time.Now(), reusing
		if conn == nil {
			phase = connecting
		}
		err := c.say(ctx, &conn)
		sum.took(began, time.Since(began))
		if err != nil {
			sum.fail(Failure{Time: began, Took: time.Since(began), Phase: phase, Error: err.Error()})
			if conn != nil {
				conn.Close()
				conn = nil
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(c.Pause):
		}
	}
	if conn != nil {
		conn.Close()
	}
	sum.Time, sum.Elapsed = time.Now(), time.Since(start)
	return sum
}

// say sends one message and waits for its answer, on a connection that it opens if there is none.
func (c Chat) say(ctx context.Context, conn **websocket.Conn) error {
	if *conn == nil {
		opening, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Timeout)
		defer cancel()
		opened, _, err := websocket.Dial(opening, c.URL)
		if err != nil {
			return err
		}
		*conn = opened
	}
	if err := (*conn).SetDeadline(time.Now().Add(c.Timeout)); err != nil {
		return err
	}
	if err := (*conn).Send(c.Send); err != nil {
		return err
	}
	_, err := (*conn).Receive()
	return err
}
