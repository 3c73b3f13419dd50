#!/usr/bin/env bash
# Start Ray on your own machines, without a launcher. Run it first on one machine, then on each of the others:
#
#   cluster/start.sh head   ADDRESS            ADDRESS: this machine's address in the network that the nodes share
#   cluster/start.sh worker ADDRESS OF_HEAD    further arguments go to `ray start`, for example --num-gpus=8
#
# It stays in the foreground: run it in systemd, tmux or a scheduler. Every machine needs the same environment
# (`make install`, or the image), the same token in ~/.ray/auth_token, and the shared storage at the same path.
# All ports are fixed, for the rules of a firewall: let the nodes reach each other on 6379, 6380, 8076,
# 20000-20999, 52365-52367 and 8090, and nobody else.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 2
}

[ $# -ge 2 ] || fail "usage: cluster/start.sh head ADDRESS | worker ADDRESS OF_HEAD [options of ray start]"
role=$1 address=$2
shift 2
[ "$address" != 0.0.0.0 ] || fail "0.0.0.0 means every network; give this machine's address in the network that the nodes share"

token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
[ -s "$token" ] || fail "no token at $token; make one on the head (ray get-auth-token --generate > /dev/null) and copy it to every node"
[ "$(stat -c %a "$token")" = 600 ] || fail "other users can read $token; run: chmod 600 $token"

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ulimit -n 65536 2>/dev/null || echo "warning: the limit of open files is $(ulimit -n); large clusters need 65536" >&2

common=(
    --block --disable-usage-stats --node-ip-address="$address" --node-manager-port=6380 --object-manager-port=8076
    --min-worker-port=20000 --max-worker-port=20999 --dashboard-agent-listen-port=52365
    --dashboard-agent-grpc-port=52366 --runtime-env-agent-port=52367 --metrics-export-port=8090
)
case $role in
head)
    # Dashboard and Jobs API listen on loopback: reach them with ssh -L 8265:127.0.0.1:8265.
    exec "${RAY:-ray}" start --head --port=6379 --dashboard-host=127.0.0.1 --dashboard-port=8265 "${common[@]}" "$@"
    ;;
worker)
    [ $# -ge 1 ] || fail "a worker needs the head's address: cluster/start.sh worker $address OF_HEAD"
    head=$1
    shift
    exec "${RAY:-ray}" start --address="$head:6379" "${common[@]}" "$@"
    ;;
*) fail "unknown role $role; choose from: head, worker" ;;
esac
