package resolver

import (
	"context"
	"log/slog"

	"hard/internal/answer"
	"hard/internal/wire"
)

// logOne logs one query. buf holds the reply or, if it is forwarded or held,
// the query.
func (r *Resolver) logOne(q *wire.Query, buf []byte, res *answer.Result, from asker) {
	if res.Action == answer.Drop {
		return
	}
	name, outcome := "?", "forward"
	if q.QEnd != 0 {
		name = string(wire.AppendText(nil, q.Name()))
	}
	switch res.Action {
	case answer.Answer:
		outcome = rcodeNames[rcodeClass(buf, sourceOf(res.Source))]
	case answer.Wait:
		outcome = "held"
	}
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "query", slog.String("name", name),
		slog.Int("type", int(q.Type)), slog.String("client", from.peer().String()),
		slog.Bool("tcp", from.tcp()), slog.String("outcome", outcome))
}
