"""The hierarchical codebook: a binary tree of codes in one fixed-size heap."""

from __future__ import annotations

import torch
from torch import nn


def heap_level(nodes: torch.Tensor) -> torch.Tensor:
    """Level of heap nodes (root: 0)."""
    # frexp is exact, log2 of a float is not at powers of two
    return torch.frexp((nodes + 1).double()).exponent.long() - 1


class TreeCodebook(nn.Module):
    """Codes of a binary tree over the latent, kept as buffers of fixed size so that saved files load strictly.

    Node ``k`` has the children ``2k + 1`` and ``2k + 2``; the root is 0. ``active`` marks the nodes that exist, a
    node without active children is a leaf, so the tree is as unbalanced as the data. The codes are running means
    (EMA) of the latents they hold: leaves are updated by the cells that reach them and every inner node is the sum of
    its children, so parents and children agree by construction.

    Parameters
    ----------
    n_latent
        Width of the latent.
    depth
        Number of levels below the root.
    decay
        Decay of the running means.

    References
    ----------
    HDTree, arXiv 2506.23287, Eq. 5. EMA codebooks: van den Oord et al. 2017, appendix A.1.
    """

    codes: torch.Tensor
    sums: torch.Tensor
    counts: torch.Tensor
    active: torch.Tensor
    heights: torch.Tensor
    variance: torch.Tensor
    initialised: torch.Tensor
    greedy: torch.Tensor

    def __init__(self, n_latent: int, depth: int, *, decay: float = 0.95) -> None:
        super().__init__()
        self.depth = depth
        self.decay = decay
        n_nodes = 2 ** (depth + 1) - 1
        self.register_buffer("codes", torch.zeros(n_nodes, n_latent))
        self.register_buffer("sums", torch.zeros(n_nodes, n_latent))
        self.register_buffer("counts", torch.zeros(n_nodes))
        self.register_buffer("active", torch.zeros(n_nodes, dtype=torch.bool))
        self.register_buffer("heights", torch.zeros(n_nodes))
        # width of the soft assignment, a squared distance
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))
        # whether cells go down the tree by the nearer child, or to the nearest of all leaves
        self.register_buffer("greedy", torch.ones((), dtype=torch.bool))

    @property
    def n_inner(self) -> int:
        """Number of heap slots that have child slots."""
        return 2**self.depth - 1

    def is_leaf(self) -> torch.Tensor:
        """Mask (n_nodes,) of the active nodes without active children."""
        leaf = self.active.clone()
        leaf[: self.n_inner] &= ~self.active[1::2]
        return leaf

    # -- from latents to nodes -------------------------------------------------------------------------------

    def assign(self, z: torch.Tensor) -> torch.Tensor:
        """Leaf of each latent: (n, d) to heap indices (n,)."""
        return self._descend(z) if bool(self.greedy) else self._nearest_leaf(z)

    def _descend(self, z: torch.Tensor) -> torch.Tensor:
        # Two candidate codes per level: O(n depth d), no distances to all nodes.
        z = z.float()
        node = torch.zeros(z.shape[0], dtype=torch.long, device=z.device)
        left_right = torch.tensor([1, 2], device=z.device)
        for level in range(self.depth):
            children = 2 * node.clamp_max(self.n_inner - 1).unsqueeze(1) + left_right
            distance = (self.codes[children] - z.unsqueeze(1)).square().sum(-1)
            chosen = children.gather(1, distance.argmin(1, keepdim=True)).squeeze(1)
            # a node of an earlier level has stopped there
            inner = (node >= 2**level - 1) & self.active[children[:, 0]]
            node = torch.where(inner, chosen, node)
        return node

    def _nearest_leaf(self, z: torch.Tensor) -> torch.Tensor:
        leaves = self.is_leaf().nonzero().squeeze(1)
        return leaves[torch.cdist(z.float(), self.codes[leaves]).argmin(1)]

    def paths(self, leaf: torch.Tensor) -> torch.Tensor:
        """Heap indices (n, depth) of the nodes from level 1 to each leaf; -1 below the leaf."""
        level = heap_level(leaf).unsqueeze(1)
        steps = torch.arange(1, self.depth + 1, device=leaf.device)
        up = (level - steps).clamp_min(0)
        ancestors = ((leaf.unsqueeze(1) + 1) >> up) - 1
        return torch.where(steps <= level, ancestors, -torch.ones_like(ancestors))

    def node_probabilities(self, z: torch.Tensor) -> torch.Tensor:
        """Soft membership (n, n_nodes): the root is 1, children sum to their parent, inactive nodes are 0.

        Leaves share out each cell by Gaussian kernels of common width around their codes; with greedy descent the
        same kernel shares out every node between its two children.
        """
        z = z.float()
        out = torch.zeros(z.shape[0], self.codes.shape[0], device=z.device)
        nodes = self.active.nonzero().squeeze(1)
        energy = torch.full_like(out, torch.inf)
        energy[:, nodes] = torch.cdist(z, self.codes[nodes]).square() / (2.0 * self.variance)
        if not bool(self.greedy):
            leaves = self.is_leaf().nonzero().squeeze(1)
            out[:, leaves] = torch.softmax(-energy[:, leaves], dim=1)
            for level in range(self.depth - 1, -1, -1):
                parents = torch.arange(2**level - 1, 2 ** (level + 1) - 1, device=z.device)
                out[:, parents] += out[:, 2 * parents + 1] + out[:, 2 * parents + 2]
            return out
        out[:, 0] = 1.0
        for level in range(self.depth):
            parents = torch.arange(2**level - 1, 2 ** (level + 1) - 1, device=z.device)
            parents = parents[self.active[2 * parents + 1]]
            left = torch.sigmoid(energy[:, 2 * parents + 2] - energy[:, 2 * parents + 1])
            out[:, 2 * parents + 1] = out[:, parents] * left
            out[:, 2 * parents + 2] = out[:, parents] * (1.0 - left)
        return out

    def commitment(self, z: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
        """Share of the latents' scatter that their leaves' codes leave unexplained; trains the encoder.

        A share and not a distance: it does not grow with the latent, so it cannot be won by shrinking it.

        Parameters
        ----------
        z
            Latents, (n, d).
        leaf
            Their leaves, (n,).
        """
        z = z.float()
        within = (z - self.codes[leaf]).square().sum()
        return within / (z - z.mean(0)).square().sum().clamp_min(1e-6)

    # -- learning the codes ------------------------------------------------------------------------------------

    @torch.no_grad()
    def update(self, z: torch.Tensor, leaf: torch.Tensor) -> None:
        """One EMA step of the leaf codes, propagated up to the root.

        Statistics are summed over all processes first, so every rank of a distributed run holds the same codes.
        """
        counts = torch.zeros_like(self.counts).index_add_(0, leaf, torch.ones_like(leaf, dtype=self.counts.dtype))
        sums = torch.zeros_like(self.sums).index_add_(0, leaf, z.float())
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
        held = self.is_leaf()
        self.counts[held] = self.decay * self.counts[held] + (1.0 - self.decay) * counts[held]
        self.sums[held] = self.decay * self.sums[held] + (1.0 - self.decay) * sums[held]
        self._propagate()

    def _propagate(self) -> None:
        """Make every inner node the sum of its children and refresh the codes."""
        for level in range(self.depth - 1, -1, -1):
            parents = torch.arange(2**level - 1, 2 ** (level + 1) - 1, device=self.codes.device)
            parents = parents[self.active[2 * parents + 1]]
            self.counts[parents] = self.counts[2 * parents + 1] + self.counts[2 * parents + 2]
            self.sums[parents] = self.sums[2 * parents + 1] + self.sums[2 * parents + 2]
        # a leaf that holds no mass keeps its place until it is re-seeded
        held = self.active & (self.counts > 1e-6)
        self.codes[held] = self.sums[held] / self.counts[held].unsqueeze(1)

    @torch.no_grad()
    def initialise(
        self,
        z: torch.Tensor,
        *,
        max_leaves: int,
        min_cells: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        """Grow the tree on latents by bisecting 2-means: the leaf with the largest scatter is split next.

        A leaf that cannot be cut into two parts of ``min_cells`` stays one, so the tree ends where the data do.

        Parameters
        ----------
        z
            Latents of training cells, (n, d).
        max_leaves
            Largest number of leaves.
        min_cells
            Smallest number of cells of a node.
        generator
            Source of randomness for the seeds of 2-means.
        """
        z = z.float()
        self._clear()
        leaf = torch.zeros(z.shape[0], dtype=torch.long, device=z.device)
        self.active[0] = True
        self._grow(z, leaf, 0, max_leaves=max_leaves, min_cells=min_cells, generator=generator)
        self.set_leaves(z, leaf)

    def _grow(
        self,
        z: torch.Tensor,
        leaf: torch.Tensor,
        top: int,
        *,
        max_leaves: int,
        min_cells: int,
        generator: torch.Generator | None,
    ) -> None:
        """Split node ``top``, now a leaf, and what comes of it, largest scatter first; ``leaf`` is changed in place."""
        scatter = {top: _scatter(z[leaf == top])}
        n_leaves = 1
        while scatter and n_leaves < max_leaves:
            node = max(scatter, key=scatter.__getitem__)
            del scatter[node]
            members = (leaf == node).nonzero().squeeze(1)
            if node >= self.n_inner or len(members) < 2 * min_cells:
                continue
            side = _two_means(z[members], generator)
            if min(int(side.sum()), int((~side).sum())) < min_cells:
                continue
            n_leaves += 1
            for child, chosen in ((2 * node + 1, ~side), (2 * node + 2, side)):
                self.active[child] = True
                leaf[members[chosen]] = child
                scatter[child] = _scatter(z[members[chosen]])

    @torch.no_grad()
    def reseed(
        self,
        z: torch.Tensor,
        leaf: torch.Tensor,
        *,
        min_share: float,
        min_cells: int = 10,
        generator: torch.Generator | None = None,
    ) -> int:
        """Regrow the subtrees around dead leaves.

        A leaf that lost its cells takes its place from its sibling's: everything below their parent is split again,
        with as many leaves as there were. The rest of the tree stays as it is.

        Parameters
        ----------
        z
            Latents of training cells, (n, d).
        leaf
            Their leaves, (n,).
        min_share
            A leaf with less than this share of the cells is dead.
        min_cells
            Smallest number of cells of a node.
        generator
            Source of randomness for the seeds of 2-means.

        Returns
        -------
        The number of dead leaves found.
        """
        z, leaf = z.float(), leaf.clone()
        held = torch.bincount(leaf, minlength=len(self.active))
        dead = (self.is_leaf() & (held < min_share * len(z))).nonzero().squeeze(1)
        for node in dead[dead > 0].tolist():
            if not self.active[node]:
                continue  # gone with an earlier one's subtree
            parent = (node - 1) // 2
            below = self.subtree(parent)
            n_leaves = int((self.is_leaf() & below).sum())
            self.active &= ~below
            self.active[parent] = True
            leaf[below[leaf]] = parent
            self._grow(z, leaf, parent, max_leaves=n_leaves, min_cells=min_cells, generator=generator)
        if len(dead):
            self.set_leaves(z, leaf)
        return len(dead)

    def subtree(self, node: int) -> torch.Tensor:
        """Mask (n_nodes,) of a node and everything below it."""
        slots = torch.arange(len(self.active), device=self.active.device)
        up = (heap_level(slots) - int(heap_level(torch.tensor(node)))).clamp_min(0)
        return ((slots + 1) >> up) - 1 == node

    @torch.no_grad()
    def drop(self, node: int) -> None:
        """Drop a node with all below it: its sibling takes their parent's place.

        Parameters
        ----------
        node
            Slot of the node, not the root.
        """
        parent, sibling = (node - 1) // 2, node + 1 if node % 2 else node - 1
        slots = self.subtree(sibling).nonzero().squeeze(1)
        below = heap_level(slots) - heap_level(torch.tensor(sibling))
        # the same steps from the parent down
        places = slots - ((sibling - parent) << below)
        gone = self.subtree(parent)
        for buffer in (self.codes, self.sums, self.counts, self.active, self.heights):
            moved = buffer[slots].clone()
            buffer[gone] = 0
            buffer[places] = moved

    @torch.no_grad()
    def set_leaves(self, z: torch.Tensor, leaf: torch.Tensor) -> None:
        """Set counts, codes and the soft width from latents (n, d) and their leaves (n,)."""
        self.counts.zero_().index_add_(0, leaf, torch.ones_like(z[:, 0], dtype=self.counts.dtype))
        self.sums.zero_().index_add_(0, leaf, z.float())
        self._propagate()
        spread = (z.float() - self.codes[leaf]).square().mean()
        self.variance.copy_(spread.clamp_min(1e-8))
        self.initialised.fill_(1)

    @torch.no_grad()
    def set_tree(self, active: torch.Tensor, heights: torch.Tensor) -> None:
        """Replace the tree by one that was built elsewhere; cells then go to the nearest of all leaves.

        Its codes come from :meth:`set_leaves`.

        Parameters
        ----------
        active
            Mask (n_nodes,).
        heights
            Dissimilarity at which a node's children part, (n_nodes,); 0 for leaves.
        """
        self._clear()
        self.active.copy_(active)
        self.heights.copy_(heights)
        self.greedy.fill_(0)

    def _clear(self) -> None:
        for buffer in (self.codes, self.sums, self.counts, self.active, self.heights):
            buffer.zero_()
        self.greedy.fill_(1)


def _scatter(z: torch.Tensor) -> float:
    return float((z - z.mean(0)).square().sum())


def _two_means(z: torch.Tensor, generator: torch.Generator | None, n_steps: int = 20) -> torch.Tensor:
    """Side (n,) of each point after 2-means that starts along the first principal direction."""
    centred = z - z.mean(0)
    # a few power iterations; a random start so that no direction is blind
    direction = torch.randn(z.shape[1], generator=generator).to(z) if generator is not None else centred.abs().sum(0)
    for _ in range(10):
        direction = centred.T @ (centred @ direction)
        direction = direction / direction.norm().clamp_min(1e-12)
    side = (centred @ direction) > 0
    for _ in range(n_steps):
        if side.all() or not side.any():
            break
        centres = torch.stack([z[~side].mean(0), z[side].mean(0)])
        new = torch.cdist(z, centres).argmin(1).bool()
        if torch.equal(new, side):
            break
        side = new
    return side
