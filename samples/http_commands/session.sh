#!/bin/sh
# Drive agents with curl: the session of docs/http.md.
#
#     lightlink server &                          a nats-server
#     lightlink http &                            commands over HTTP
#     python samples/http_commands/agent.py &     two agents
#     sh samples/http_commands/session.sh [http://127.0.0.1:8475]
set -eu
trap 'kill $! 2>/dev/null || true' EXIT
api=${1:-http://127.0.0.1:8475}

# Take a field out of a reply; with jq it would be: jq -r .command_id
field() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
title() { printf '\n# %s\n' "$1"; }

title "Is it there?"
curl -s "$api/health"

title "Send a command; the reply comes as soon as it is stored"
sent=$(curl -s "$api/api/command" -H 'Content-Type: application/json' \
    -d '{"client_id": "greenhouse", "command_type": "open_window", "payload": {"window": "left", "fraction": 0.5}}')
echo "$sent"
id=$(echo "$sent" | field command_id)

title "Wait for its result, 30 seconds at most"
curl -s "$api/api/command/$id?wait=30"

title "Send it to many, by their labels, and wait for all of them"
curl -s "$api/api/command/multi" -H 'Content-Type: application/json' \
    -d '{"labels": {"site": "berlin"}, "command_type": "open_window", "payload": {"window": "right"}}'

title "The same without waiting; the batch can be asked for at any time"
batch=$(curl -s "$api/api/command/multi" -H 'Content-Type: application/json' \
    -d '{"client_ids": ["greenhouse", "attic"], "command_type": "open_window", "payload": {"window": "left"}, "wait": false}')
echo "$batch"
curl -s "$api/api/batch/$(echo "$batch" | field batch_id)"

title "A command for a client that is offline waits for it, unless it is not to"
curl -s "$api/api/command" -H 'Content-Type: application/json' \
    -d '{"client_id": "garage", "command_type": "open_window", "payload": {"window": "left"}, "queue": false}'

title "A retry with the same key does not send a second command"
for attempt in 1 2; do
    curl -s "$api/api/command" -H 'Content-Type: application/json' \
        -d '{"client_id": "greenhouse", "command_type": "open_window", "payload": {"window": "left"}, "idempotency_key": "ticket-4711"}'
done

title "Cancel one that runs"
id=$(curl -s "$api/api/command" -H 'Content-Type: application/json' \
    -d '{"client_id": "greenhouse", "command_type": "water", "payload": {"seconds": 60}, "timeout": 120}' | field command_id)
curl -s "$api/api/command/$id/cancel" -H 'Content-Type: application/json' -d '{"reason": "it rains"}'
curl -s "$api/api/command/$id?wait=30"

title "What was sent to the greenhouse, newest first"
curl -s "$api/api/commands?client_id=greenhouse&limit=2"

title "Who is online?"
curl -s "$api/api/clients"

title "Tell one agent something, or all of them; messages are not stored"
curl -s "$api/api/send" -H 'Content-Type: application/json' \
    -d '{"client_id": "greenhouse", "type": "notice", "payload": "a storm is coming", "wait_ack": true}'
curl -s "$api/api/broadcast" -H 'Content-Type: application/json' -d '{"type": "notice", "payload": "all clear"}'

title "Follow every change as it happens (server-sent events)"
events=$(mktemp)
curl -sN --max-time 20 "$api/api/commands/stream?client_id=greenhouse" > "$events" &
until grep -q ': connected' "$events"; do sleep 0.1; done
curl -s "$api/api/command" -H 'Content-Type: application/json' -o /dev/null \
    -d '{"client_id": "greenhouse", "command_type": "open_window", "payload": {"window": "left"}}'
until grep -q '"status":"completed"' "$events"; do sleep 0.1; done
kill $!
cat "$events"
rm "$events"

title "What is wrong is named"
curl -s "$api/api/command" -H 'Content-Type: application/json' -d '{"client_id": "greenhouse", "comand_type": "water"}'

title "Metrics for Prometheus"
curl -s "$api/metrics" | grep -E '^command_(sent|completed|failed)_total'
